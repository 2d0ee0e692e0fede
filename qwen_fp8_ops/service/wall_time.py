"""The end of the allocation: when it comes, how the service learns of it, and what follows.

SLURM tells a batch script by SIGUSR1 (``--signal=B:USR1@N``), which may be a minute early, and an allocation that was entered by
salloc or ssh not at all. So the service also minds the clock; the end is asked for again now and then, because it can be moved
(``scontrol update JobId=... TimeLimit=...``).

    notice ─> drain ─> programs end ─> end of the allocation: SIGTERM ─ KillWait ─> SIGKILL
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.slurm import submit
from qwen_fp8_ops.slurm.allocation import Allocation, end_of
from qwen_fp8_ops.slurm.limits import KILL_WAIT_SECONDS, kill_wait_seconds

ASK_SECONDS = 60.0
PROOF_SECONDS = 3.0
"""Of KillWait, kept for the proof that everything is gone and for the record of it."""


class WallTime:
    """``ends_at`` is ISO 8601, and the latest that SLURM told. Nothing happens without an allocation."""

    def __init__(self, allocation: Allocation | None, *, notice_seconds: float) -> None:
        here = allocation if allocation and allocation.on_node else None  # in salloc's shell on a login node nobody ends us
        self._allocation = here
        self.ends_at = here.ends_at if here else None
        left = here.seconds_left if here else None
        # An allocation that is shorter than the notice is served for half of its time rather than not at all.
        self.notice_seconds = min(notice_seconds, max(0.0, left) / 2) if left is not None else notice_seconds
        self.kill_wait_seconds = KILL_WAIT_SECONDS
        self.kill_at: float | None = None

    def watch(self) -> None:
        """Keep asking, in a thread that ends with the process: a controller that is down takes its time to be so."""
        if self._allocation:
            threading.Thread(target=self._keep_asking, args=(self._allocation.job_id,), daemon=True, name="wall-time").start()

    def _keep_asking(self, job_id: str) -> None:
        self.kill_wait_seconds = kill_wait_seconds()
        never = threading.Event()
        while not never.wait(ASK_SECONDS):
            try:
                self.ends_at = end_of(job_id)
            except OpsError:
                pass  # what was told last still counts

    @property
    def is_near(self) -> bool:
        return self.ends_at is not None and -clock.seconds_since(self.ends_at) <= self.notice_seconds

    def kill_follows(self) -> None:
        """SIGTERM came. When SLURM started us it is SLURM's, and SIGKILL comes KillWait later; elsewhere there is time."""
        if self._allocation and self._allocation.managed and self.kill_at is None:
            self.kill_at = clock.monotonic() + self.kill_wait_seconds

    @property
    def is_up(self) -> bool:
        """Is SIGKILL so near that nothing can be waited for any more?"""
        return self.kill_at is not None and clock.monotonic() > self.kill_at - PROOF_SECONDS

    def drain_until(self, began: float, drain_seconds: float) -> float:
        """The moment (monotonic) at which a drain that began then must be over: two fifths of KillWait, when SIGKILL follows."""
        end = began + drain_seconds
        return end if self.kill_at is None else min(end, self.kill_at - 0.6 * self.kill_wait_seconds)

    def grace_seconds(self, wanted: float) -> float:
        """What of a program's own time to end there is."""
        return wanted if self.kill_at is None else max(0.0, min(wanted, self.kill_at - PROOF_SECONDS - clock.monotonic()))

    # --- what follows -------------------------------------------------------------------------------------------------------

    def requeues(self, at_end: str) -> str | None:
        """The job to requeue after the stop; only a batch job can be."""
        return self._allocation.job_id if self._allocation and self._allocation.batch and at_end == "requeue" else None

    def chain(self, at_end: str, paths: RunPaths, tell: Callable[[str, str], None]) -> str | None:
        """Submit the job's successor, when asked to; returns its id. Early, so that it waits in the queue while we drain."""
        if not (self._allocation and self._allocation.batch and at_end == "chain"):
            return None
        try:
            successor = submit.chain(paths.job_script, self._allocation.job_id)
        except OpsError as error:
            tell(f"No job was chained: {error.message}", "error")
            return None
        tell(f"Job {successor} is chained: it starts when this one has ended.", "info")
        return successor
