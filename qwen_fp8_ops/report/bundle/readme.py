"""README.txt of a bundle: for whoever opens it, and for whoever wants to know what is given away before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.report.bundle.case import Case
from qwen_fp8_ops.report.bundle.mask import PATTERNS
from qwen_fp8_ops.report.bundle.parts import PARTS


def readme(case: Case, problems: Sequence[str], counts: Mapping[str, int]) -> str:
    """
    Args:
        problems: what could not be had, one line each.
        counts: how often each kind of secret was taken out.
    """
    taken = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()) if count) or "nothing had to be"
    return "\n".join(
        [
            f"Support bundle of qwen-fp8, host {process.host_name()}, {clock.now()}",
            "",
            "What is inside",
            *(f"  {part.about}" for part in PARTS),
            f"  Of logs and events the last {case.last_lines} lines of each file.",
            "",
            "What was taken out",
            "  API keys, run/keys, tokens of the Hub and what else this machine's files and environment know as a secret, wherever it stood;",
            f"  and whatever has the look of one: {', '.join(PATTERNS)}.",
            "  In its place stands <masked: WHAT>. Comments of config.env and values of unknown keys are left out.",
            f"  Taken out here: {taken}.",
            "",
            "What is still in it",
            "  Names of hosts, users, jobs and keys, paths, addresses of clients, and what of their requests the engine was told to log.",
            "  Look into it before you send it on.",
            "",
            "What could not be had",
            *([f"  {line}" for line in problems] or ["  Nothing: it is all there."]),
            "",
        ]
    )
