"""How the supervisor speaks to whoever watches it. It says facts; a terminal, a log file or nobody makes something of them."""

from __future__ import annotations

from typing import Any, Protocol

from qwen_fp8_ops.service.states import State


class Talk(Protocol):
    def say(self, text: str, level: str = "info") -> None:
        """Something happened that a person should know; ``level`` is info, warning or error."""

    def progress(self, text: str) -> None:
        """What is being waited for just now; may be said again and again."""

    def update(self, state: State, snapshot: dict[str, Any]) -> None:
        """The state of things, several times a second."""

    def ready(self, snapshot: dict[str, Any], seconds: float) -> None:
        """The service is ready, for the first time since its start or restart so many seconds ago."""
