"""What a weight cache that was ended by a signal leaves behind: its sockets, and torch's counters of shared tensors in /dev/shm."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only files named after processes of ours are removed


def remove_sockets(folder: Path) -> str:
    """Remove the folder with the sockets; what could not be removed, in words. One that is not ours alone is left as it is."""
    if is_foreign(folder) or not folder.exists():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    return f"{folder} with the sockets of the weight cache is still there" if folder.exists() else ""


def is_foreign(folder: Path) -> bool:
    """Did somebody else put something there? A symbolic link is nothing of ours either."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()


def remove_counters(pids: Iterable[int]) -> None:
    """Remove the files by which torch counts the users of tensors that these processes shared; they have ended.

    An engine that has such a file open keeps it open (``torch/csrc/CudaIPCTypes.cpp``: its name begins with torch_ and the pid).
    """
    for pid in pids:
        for path in SHARED_MEMORY.glob(f"torch_{pid}_*"):
            path.unlink(missing_ok=True)
