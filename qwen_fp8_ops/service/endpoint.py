"""The files that tell others what runs: plan.json for people and ``restart``, endpoint.json for clients, also on other nodes."""

from __future__ import annotations

import shutil

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside.files import remove_torn, write_json
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.outside.weight_traces import remove_sockets
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.service import scratch
from qwen_fp8_ops.slurm.allocation import Allocation


def publish(plan: LaunchPlan, paths: RunPaths, me: Identity, allocation: Allocation | None) -> None:
    """
    Raises:
        OpsError: the run folder refuses the write.
    """
    write_json(paths.plan, plan.as_json())
    write_json(
        paths.endpoint,
        {
            "schema": 1,
            "host": me.host,
            "port": plan.engines[0].port,
            "url": plan.url,
            "media_url": plan.media.url,
            "model": plan.settings.served_model_name,
            "key_file": str(plan.api_keys_file) if plan.api_keys_file else None,
            "ends_at": allocation.ends_at if allocation else None,
        },
    )


def withdraw(paths: RunPaths) -> None:
    """What must not outlive the run; its programs are gone."""
    for file in (paths.endpoint, paths.keys, paths.gate, paths.next_plan):
        file.unlink(missing_ok=True)
    shutil.rmtree(paths.in_flight, ignore_errors=True)
    remove_torn(paths.run)
    scratch.clear(paths.run)
    remove_sockets(paths.weight_sockets)
