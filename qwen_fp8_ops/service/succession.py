"""A run's folder outlives its jobs: a lock that was left on another node is ours when SLURM says that its job has ended.

The pid of another host is not ours to judge, but a job is the controller's, whose word counts on every node: after a node failed,
the requeued job must be able to start, and nobody else knows that the old one is gone.
"""

from __future__ import annotations

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import lock
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.slurm import queue


def acquire(paths: RunPaths, me: Identity) -> Identity | None:
    """The run's lock, also from a job that is over; None when it is ours, else who holds it."""
    other = lock.acquire(paths.lock, me)
    if other is not None and is_over(other, me.job_id):
        lock.release(paths.lock, other)
        other = lock.acquire(paths.lock, me)
    return other


def is_over(holder: Identity, my_job_id: str | None) -> bool:
    """Has the job of a supervisor on another host ended, as far as SLURM knows? One that runs twice was requeued."""
    if holder.here or holder.job_id is None:
        return False
    if holder.job_id == my_job_id:
        return True
    try:
        job = queue.find(holder.job_id)
    except OpsError:
        return False
    return job is None or job.is_over
