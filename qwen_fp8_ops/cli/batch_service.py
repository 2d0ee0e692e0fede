"""Which service a batch asks, and how to find it again after it was started anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_fp8_ops.cli.target import Target, given_target, own_target
from qwen_fp8_ops.client.async_api import Endpoint
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import NotRunningError

if TYPE_CHECKING:
    from qwen_fp8_ops.cli.batch_options import BatchOptions
    from qwen_fp8_ops.cli.common import Call


@dataclass
class Service:
    """``find`` looks anew each time; ``target`` is what it found last, None before."""

    find: Callable[[], Target]
    target: Target | None = None

    def locate(self) -> Endpoint:
        """
        Raises:
            NotRunningError: it is not there now; the message says how far it is.
        """
        self.target = self.find()
        return Endpoint(self.target.url, self.target.key)


def service_of(call: Call, batch: BatchOptions) -> Service:
    """
    Raises:
        NotRunningError: there is none to wait for: it was never started, has ended, or SLURM knows no such job.
        OpsError: a key file cannot be used; SLURM does not tell.
    """
    if batch.server_url is not None:
        given = given_target(batch.server_url, batch.key_file, os.environ)
        return Service(lambda: given)
    if batch.job is not None:
        paths = _paths_of(batch.job)
        return Service(lambda: own_target(paths, batch.key_file, wait=False, say=call.say))
    service = Service(lambda: own_target(call.paths, batch.key_file, wait=False, say=call.say))
    try:
        service.locate()
    except NotRunningError as error:
        if error.code != "not-ready":
            raise
    return service


def _paths_of(job_id: str) -> RunPaths:
    from qwen_fp8_ops.report.job import job_line, known_job, run_of

    job = known_job(job_id)
    if job.is_over:
        raise NotRunningError(f"It has ended: {job_line(job)}", code="job-over", fix="qwen-fp8 jobs   lists those that run.")
    return run_of(job)
