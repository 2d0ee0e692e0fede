"""What one rule is made of: the signs it looks for, the cause they show, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from qwen_fp8_ops.engine.failures.scene import Scene

MOST_EVIDENCE = 4


@dataclass(frozen=True)
class Change:
    """A key of config.env and the value that would help. ``known``: the engine's own number, which no estimate of ours overrules."""

    key: str
    value: str | float
    why: str
    known: bool = False

    def __str__(self) -> str:
        return f"Set {self.key}={self.value} in config.env: {self.why}"


@dataclass(frozen=True)
class Signs:
    """What was seen: the lines to quote, and the parts of them that the cause names."""

    evidence: tuple[str, ...]
    parts: Mapping[str, str] = field(default_factory=dict)


Seen = Callable[[Scene], Signs | None]
Ways = Callable[[Scene, Signs], Iterable[Change]]


@dataclass(frozen=True)
class Rule:
    """
    Attributes:
        code: stable kebab-case name of the cause; scripts may test for it.
        seen: the signs of it, or None.
        cause: one clause without a full stop; ``{names}`` are parts of the signs.
        retryable: can the same start work the next time?
        ways: what to change in config.env, the best first.
        fix: what helps and is no key; a command has a line of its own.
        planned: does the memory plan know ways as well, and must it agree with those named here?
    """

    code: str
    seen: Seen
    cause: str
    retryable: bool
    ways: Ways | None = None
    fix: str = ""
    planned: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """``evidence`` are lines of the engine's log or of the kernel's. ``fix`` as in ``Rule``."""

    code: str
    cause: str
    evidence: tuple[str, ...]
    retryable: bool
    changes: tuple[Change, ...] = ()
    fix: str = ""

    @property
    def known(self) -> bool:
        return self.code != "unknown"

    @property
    def lines(self) -> tuple[str, ...]:
        """Cause and evidence, each once."""
        return tuple(dict.fromkeys([self.cause, *self.evidence] if self.known else self.evidence))

    def after(self, how: str) -> str:
        """The exit in words, and why: one clause."""
        return f"{how}: {self.cause}" if self.cause else how

    @property
    def remedy(self) -> str:
        """Everything to try, a line each; a command has a line of its own."""
        return "\n".join([*map(str, self.changes), *([self.fix] if self.fix else [])])
