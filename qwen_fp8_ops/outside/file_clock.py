"""The clock of a file system. A file server stamps files with its own time; what compares stamps with this host's clock then errs."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def seconds_ahead(folder: Path) -> float | None:
    """How far the stamps of ``folder``'s file system are ahead of this host's clock; negative when behind, None where no file can be made.

    Makes an empty file and removes it. A local disk errs by up to a clock tick, 4 ms or so.
    """
    trial = folder / f".clock.{os.getpid()}"
    try:
        before = time.time()
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return None
    try:
        os.write(descriptor, b"\n")  # a server may give a file that nobody wrote to the client's time
        os.fsync(descriptor)
        after = time.time()
        stamp = os.fstat(descriptor).st_mtime
    except OSError:
        return None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            trial.unlink()
    return stamp - before if stamp < before else max(0.0, stamp - after)
