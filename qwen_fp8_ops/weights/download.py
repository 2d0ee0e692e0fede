"""Bring a folder to the content of one commit: several files at a time, each verified, nothing fetched twice, one download per folder."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, lock, process
from qwen_fp8_ops.weights.download_plan import DownloadPlan, Presence, Request, make_download_plan, remember
from qwen_fp8_ops.weights.download_work import Audience, Work
from qwen_fp8_ops.weights.fetch import WORK, aside_path, part_path
from qwen_fp8_ops.weights.hub import Hub
from qwen_fp8_ops.weights.room import check_room, disk_words, gigabytes


@dataclass(frozen=True)
class Result:
    """``fetched_*`` came over the network, also in part; ``checked_files`` were here by other means and are right."""

    plan: DownloadPlan
    fetched_files: int
    fetched_bytes: int
    checked_files: int
    seconds: float

    @property
    def nothing_to_do(self) -> bool:
        return not self.plan.todo

    def as_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "repo": plan.request.repo,
            "revision": plan.commit,
            "requested": plan.request.revision,
            "moved_to": plan.moved_to,
            "files": len(plan.items),
            "bytes": plan.bytes,
            "fetched_files": self.fetched_files,
            "fetched_bytes": self.fetched_bytes,
            "checked_files": self.checked_files,
            "seconds": round(self.seconds, 3),
        }


def download(request: Request, hub: Hub, audience: Audience) -> Result:
    """Bring what is missing. Interrupted at any moment, the next call goes on.

    Raises:
        PreflightError: the disk is too small; nothing was fetched.
        HubError, GaveUpError: the Hub refuses, or does not come back.
        OpsError: another download has the folder; the disk refuses; a file came wrong twice; offline, and something is missing.
    """
    began = clock.monotonic()
    plan = make_download_plan(request, hub, audience.say)
    if plan.moved_to:
        audience.say(f"{request.revision} is now {plan.moved_to}; this folder stays at {plan.commit}. To go there: qwen-fp8 download --update")
    if plan.settled:
        return Result(plan, 0, 0, 0, clock.monotonic() - began)
    _refuse_what_cannot_end(plan)  # before anything is made
    with folder_to_ourselves(request.folder):
        plan = make_download_plan(request, hub, audience.say, plan)
        work = Work(plan, hub, audience)
        if plan.todo:
            _refuse_what_cannot_end(plan)
            with disk_words(request.folder):
                remember(plan)
            work.write_manifest()  # from here on the folder is on its way to this commit, and says so
            audience.begin(plan)
            work.carry_out()
        work.write_manifest()
        _tidy(plan, work.verified_names, audience.say)
        return Result(plan, work.fetched_files, work.counter.fetched_bytes, work.checked_files, clock.monotonic() - began)


def _refuse_what_cannot_end(plan: DownloadPlan) -> None:
    missing = [item for item in plan.todo if item.presence is not Presence.FOUND]
    if plan.request.offline and missing:
        names = ", ".join(item.file.name for item in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise OpsError(
            f"Offline, and {len(missing)} of {len(plan.items)} files ({gigabytes(plan.missing_bytes)}) are missing: {names}",
            code="offline-missing",
            fix="Download them with a network, without --offline and HF_HUB_OFFLINE.",
        )
    check_room(plan.request.folder, plan.missing_bytes, plan.bytes, len(missing))


@contextlib.contextmanager
def folder_to_ourselves(folder: Path) -> Iterator[None]:
    """For whoever puts files in place: a download, a repair.

    Raises:
        OpsError: another download is at work here; a lock of one that is gone is cleared.
    """
    path = folder / WORK / "lock"
    me = process.identify(os.getpid(), os.environ.get("SLURM_JOB_ID"))
    assert me is not None, "a running process has an identity"
    with disk_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        other = lock.acquire(path, me)
    if other is not None:
        job = f", job {other.job_id}" if other.job_id else ""
        gone = f"Look there; if that machine is gone for good: rm {shlex.quote(str(path))}"
        fix = f"Wait for it, or end it and go on here: kill {other.pid}" if other.here else gone
        raise OpsError(f"Another download into {folder} is at work (pid {other.pid} on {other.host}{job})", code="download-running", fix=fix)
    try:
        yield
    finally:
        lock.release(path, me)


def _tidy(plan: DownloadPlan, verified: frozenset[str], say: Callable[[str], None]) -> None:
    """All is here that was asked for: parts of other commits are of no use, and what only the commit before had must not lie among it."""
    if plan.listing is None:
        return
    folder = plan.request.folder
    useful = {part_path(folder, file) for file in plan.listing if file.name not in verified}
    with disk_words(folder):
        for part in set((folder / WORK).rglob("*.part")) - useful:
            part.unlink(missing_ok=True)
        for name in plan.gone:
            kept = aside_path(folder, name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder / name, kept)
            say(f"{name} is no file of this commit; it is now {kept}")
