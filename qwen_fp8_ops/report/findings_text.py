"""What the checks of a start found, for a person: by group, the fix beneath what was seen, and the verdict last."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from qwen_fp8_ops.preflight.checks import CODES, GROUPS, group_of
from qwen_fp8_ops.preflight.finding import Finding, verdict

MARKS = {"pass": "ok  ", "warn": "warn", "fail": "FAIL"}
CODE_WIDTH = max(map(len, CODES))
VERDICTS = {"pass": "A start would go ahead.", "warn": "A start would go ahead, with warnings", "fail": "A start would be refused"}


def render_findings(findings: Sequence[Finding], width: int) -> str:
    """
    Args:
        width: columns; commands to paste are never cut in two.
    """
    lines = []
    for group, members in itertools.groupby(
        sorted(findings, key=lambda finding: list(GROUPS.values()).index(group_of(finding.code))), key=lambda finding: group_of(finding.code)
    ):
        lines.append(group)
        for finding in members:
            lines += _one(finding, width)
    return "\n".join([*lines, "", *_verdict(findings)])


def render_codes(width: int) -> str:
    """Every code, and what it is about."""
    lines = []
    for group, codes in itertools.groupby(CODES, key=lambda code: GROUPS[code]):
        lines.append(group)
        for code in codes:
            lines += _hanging(f"  {code:<{CODE_WIDTH}}  ", CODES[code], width)
    return "\n".join(lines)


def _one(finding: Finding, width: int) -> Iterator[str]:
    yield from _hanging(f"  {MARKS[finding.level]} {finding.code:<{CODE_WIDTH}}  ", finding.seen, width)
    if finding.level == "pass":
        return
    for line in finding.fix.splitlines():
        # A sentence begins with a capital; anything else is a command, which must stay in one piece.
        yield from _hanging(" " * 7 + "> ", line, width) if line[:1].isupper() else [" " * 7 + "> " + line]


def _hanging(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False) or [head.rstrip()]


def _verdict(findings: Iterable[Finding]) -> Iterator[str]:
    told = list(findings)
    judged, count = verdict(told), Counter(finding.level for finding in told)
    if judged == "pass":
        yield f"{VERDICTS[judged]} {count['pass']} findings, all well."
        return
    yield f"{VERDICTS[judged]}: {count['fail']} failed, {count['warn']} to be warned of, {count['pass']} well."
    if count["fail"]:
        yield "To start all the same, name each failure: start --force CODE"
