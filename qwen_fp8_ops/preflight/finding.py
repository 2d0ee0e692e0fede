"""What one check found, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """``code`` is stable; ``seen`` says what was found, ``fix`` what to do, one step a line."""

    code: str
    level: Level
    seen: str
    fix: str = ""

    def as_text(self) -> str:
        """What was seen, each step of the fix on a line of its own beneath it."""
        return self.seen + "".join(f"\n  {line}" for line in self.fix.splitlines())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def verdict(findings: Iterable[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "pass"


def forced(findings: Iterable[Finding], codes: Collection[str]) -> tuple[Finding, ...]:
    """A failure whose code somebody overrides is a warning that says so."""
    return tuple(
        replace(finding, level="warn", seen=f"{finding.seen} (forced: --force {finding.code})")
        if finding.level == "fail" and finding.code in codes
        else finding
        for finding in findings
    )
