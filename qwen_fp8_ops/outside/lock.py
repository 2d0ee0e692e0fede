"""One process at a time: one supervisor per run folder, one download per model folder, one set-up per checkout.

The lock is a file that only one process can create, and that says who did: host, boot, pid, start time, job. flock alone would
not do, because Lustre, GPFS and NFS may grant it twice. Here it only keeps two starters on one host from clearing the same
stale lock at once.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json, write_error
from qwen_fp8_ops.outside.process import Identity


def holder(path: Path) -> Identity | None:
    """Who holds the lock, alive or not; None when nobody does.

    Raises:
        OpsError: the file is there but tells nobody.
    """
    value = read_json(path)
    if value is None:
        return None
    identity = Identity.from_json(value)
    if identity is None:
        raise OpsError(f"{path} names no process", code="damaged-file", fix=f"If nothing of this run is left, remove it: rm '{path}'")
    return identity


def acquire(path: Path, me: Identity) -> Identity | None:
    """Take the lock. A lock of a process of this host that is gone is cleared first.

    Returns:
        None when it is ours now; else who holds it: a living process, or one of another host, which is not ours to judge.

    Raises:
        OpsError: the folder refuses the file.
    """
    try:
        guard = os.open(path.with_name(f"{path.name}.guard"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        created = False
        while not created:
            other = holder(path)
            if other is not None and (other.alive or not other.here):
                return other
            path.unlink(missing_ok=True)  # first, so that a full disk has room for ours
            created = _create(path, me)
    finally:
        os.close(guard)
    return None


def _create(path: Path, me: Identity) -> bool:
    # Written beside and linked into place: a reader never sees a lock without its owner.
    temporary = path.with_name(f".{path.name}.{me.pid}")
    try:
        temporary.write_text(json.dumps(me.as_json()) + "\n")
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def release(path: Path, me: Identity) -> None:
    """Give the lock back, if it is still ours."""
    if holder(path) == me:
        path.unlink(missing_ok=True)
