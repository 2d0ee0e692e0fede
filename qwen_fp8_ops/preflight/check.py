"""A check: a small function that looks and yields findings, with the codes that it may find and what each of them is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject

Look = Callable[[Subject], Iterator[Finding]]


@dataclass(frozen=True)
class Check:
    """``codes`` maps each code that may be found to what is looked at, in words that fit after "checks"."""

    group: str
    codes: Mapping[str, str]
    look: Look

    def __call__(self, subject: Subject) -> Iterator[Finding]:
        return self.look(subject)

    def findings(self, subject: Subject) -> list[Finding]:
        """What was found; a check that could not even look has found that. A path can be too long, a folder closed, a name no name."""
        found = []
        try:
            for finding in self.look(subject):
                found.append(finding)  # noqa: PERF402 - what it found before it failed is kept
        except (OSError, ValueError) as error:
            told = {finding.code for finding in found}
            code = next((code for code in self.codes if code not in told), next(iter(self.codes)))
            found.append(Finding(code, "fail", f"{code} could not be checked: {error}", "Correct what it names; `qwen-fp8 config` shows every setting."))
        return found


def check(group: str, codes: Mapping[str, str]) -> Callable[[Look], Check]:
    """Make a function a check."""
    return lambda look: Check(group, codes, look)
