"""One program of a plan: a command line and all that its supervisor has to know about it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RUN_MARK = "QWEN_FP8_RUN"
"""Environment variable that names the run's folder in each of its programs."""

WEIGHT_CACHE = "weight-cache"
"""Name and role of the one program of that kind."""


@dataclass(frozen=True)
class Program:
    """One child of the supervisor.

    ``env`` is added to the supervisor's own environment. ``url`` is what clients use, ``health_url`` answers 200 when it can
    serve. Times are seconds. ``needs`` names programs that must be ready before it is started; ``argv_alone`` is its command when
    one of those has been given up. The weight cache has no port: ``sockets`` is the folder in which each of its ``ranks`` listens.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: str
    host: str
    port: int
    url: str
    health_url: str
    ready_seconds: int
    stop_seconds: int
    needs: tuple[str, ...] = ()
    argv_alone: tuple[str, ...] = ()
    sockets: str = ""
    ranks: int = 0

    @property
    def is_engine(self) -> bool:
        return self.role == "engine"

    @property
    def is_weight_cache(self) -> bool:
        return self.role == WEIGHT_CACHE

    @property
    def loads_weights(self) -> bool:
        """Does it read the checkpoint and hold GPUs? What is said of an engine's log, devices and death holds for both that do."""
        return self.is_engine or self.is_weight_cache

    def runs_as(self, other: Program) -> bool:
        """Would the same process do for both? How long it is waited for is not the process's business."""
        return (self.name, self.argv, dict(self.env)) == (other.name, other.argv, dict(other.env))

    @property
    def base_url(self) -> str:
        """Where the program's own routes begin; ``url`` may go on with the API's version."""
        return self.url.removesuffix("/v1")

    def shell_line(self) -> str:
        """The command as it could be pasted into a shell."""
        return " ".join([*(f"{key}={shlex.quote(value)}" for key, value in self.env.items()), shlex.join(self.argv)])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Program:
        """
        Raises:
            KeyError, TypeError: it was written by another version.
        """
        words = {key: tuple(value.get(key, ())) for key in ("argv", "needs", "argv_alone")}
        return cls(**{**value, **words})
