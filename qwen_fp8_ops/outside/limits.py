"""What the kernel lets this process and its children have. A batch system hands on the limits of the shell that submitted the job."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """``hard`` is as far as a process may raise ``soft`` itself; None is unlimited."""

    soft: int | None
    hard: int | None

    def raised_to(self, wanted: int) -> int | None:
        """What a program has that asks for ``wanted`` and, when refused, goes on with what it has."""
        return wanted if self.soft is not None and self.soft < wanted and (self.hard is None or self.hard >= wanted) else self.soft


def open_files() -> Limit:
    """As `ulimit -Sn` and `ulimit -Hn`."""
    return _limit(resource.RLIMIT_NOFILE)


def locked_bytes() -> Limit:
    """Memory that may be pinned. As `ulimit -Sl` and `ulimit -Hl`, which count KiB."""
    return _limit(resource.RLIMIT_MEMLOCK)


def _limit(kind: int) -> Limit:
    soft, hard = (None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(kind))
    return Limit(soft, hard)
