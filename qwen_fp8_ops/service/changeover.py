"""A change of plan while the service runs: asked for in run/next-plan.json, and taken back when the service does not start with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.files import read_json, write_json
from qwen_fp8_ops.plan.launch import LaunchPlan


@dataclass(frozen=True)
class Request:
    """``keep_weights``: a weight cache stays, where the plan leaves it as it is. Else the weights are read anew: the files may be others."""

    plan: LaunchPlan
    keep_weights: bool

    def write(self, paths: RunPaths) -> None:
        """
        Raises:
            OpsError: the run's folder refuses it.
        """
        write_json(paths.next_plan, {"schema": 1, "keep_weights": self.keep_weights, "plan": self.plan.as_json()})

    @classmethod
    def take(cls, paths: RunPaths) -> Request | None:
        """The one that is asked for, which is then no more; None when there is none.

        Raises:
            OpsError: it is damaged, or of another version.
        """
        value = read_json(paths.next_plan)
        if value is None:
            return None
        try:
            paths.next_plan.unlink(missing_ok=True)
            return cls(LaunchPlan.from_json(value["plan"]), bool(value["keep_weights"]))
        except (KeyError, TypeError) as error:
            raise OpsError(f"{paths.next_plan} is damaged: {error!r}", code="damaged-file", fix="qwen-fp8 restart") from error
        except OSError as error:
            raise OpsError(f"{paths.next_plan} cannot be removed: {error.strerror}", fix="qwen-fp8 restart") from error


@dataclass(frozen=True)
class Changeover:
    """From ``previous`` to other settings. ``changed`` has their old and their new text; ``error`` is why they were taken back."""

    previous: LaunchPlan
    changed: Mapping[str, tuple[str, str]]
    at: str
    error: OpsError | None = None

    @classmethod
    def between(cls, old: LaunchPlan, new: LaunchPlan) -> Changeover:
        return cls(old, changes(old.texts, new.texts), clock.now())

    @property
    def can_be_taken_back(self) -> bool:
        return bool(self.changed) and self.error is None

    def taken_back(self, error: OpsError) -> Changeover:
        return replace(self, error=error)

    def settings(self, *, new: bool) -> str:
        """``MAX_NUM_SEQS=8 MAX_MODEL_LEN=65536``, as they are after the change or as they were before it."""
        return " ".join(f"{key}={texts[new]}" for key, texts in self.changed.items())

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "settings": {key: {"from": old, "to": new} for key, (old, new) in self.changed.items()},
            "taken_back": {key: self.error.as_json()[key] for key in ("code", "message", "fix")} if self.error else None,
        }


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {key: (old[key], text) for key, text in new.items() if key in old and old[key] != text}
