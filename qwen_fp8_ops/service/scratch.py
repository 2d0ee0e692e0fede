"""One folder for the temporary files of a run's programs, so that what a killed one leaves there is found and goes with the run.

vLLM keeps its sockets where temporary files go, under names of its own making. A socket's path has 107 bytes at most (unix(7)), so
the folder lies there too, and not in run/; the link run/tmp leads to it, for the stop that comes after a supervisor was killed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import stat
import tempfile
from pathlib import Path

LINK = "tmp"
PREFIX = "qwen-fp8-"
INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


def environment(run: Path) -> dict[str, str]:
    """What has a program put its temporary files into the run's folder, which is made where there is none; nothing where it cannot be.

    Inductor keeps compiled kernels beside temporary files. They are to outlive the run, so its folder stays where it was.
    """
    try:
        folder = _existing(run) or _make(run)
    except OSError:
        return {}  # a full disk: the program takes the common folder
    return {"TMPDIR": str(folder)} | ({} if INDUCTOR in os.environ else {INDUCTOR: f"{tempfile.gettempdir()}/torchinductor_{_user()}"})


def clear(run: Path) -> None:
    """Remove the folder with all that is in it; the programs are gone."""
    folder = _existing(run)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        (run / LINK).unlink()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # in a container a user may have no name


def _existing(run: Path) -> Path | None:
    """The folder that the link leads to, if it is one that we made: nothing else is ever written to or removed."""
    try:
        folder = Path(os.readlink(run / LINK))
        status = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if ours and folder.name.startswith(PREFIX) else None


def _make(run: Path) -> Path:
    """
    Raises:
        OSError: the disk refuses it.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    link = run / LINK
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    except OSError:
        folder.rmdir()
        raise
    return folder
