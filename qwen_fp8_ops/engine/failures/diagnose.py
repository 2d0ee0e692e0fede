"""From the scene to the diagnosis: the first rule that applies, its sentence filled in, its remedies agreed with the memory plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_fp8_ops.engine.failures.rule import Change, Diagnosis, Rule, Signs
from qwen_fp8_ops.engine.failures.rules import RULES
from qwen_fp8_ops.engine.failures.scene import Scene

MOST_CHANGES = 3

Replan = Callable[[Sequence[Change]], Sequence[Change]]
"""What the memory plan makes of the changes: those with which it does not start are dropped, its own follow."""


def diagnose(scene: Scene, replan: Replan = list, rules: Sequence[Rule] = RULES) -> Diagnosis:
    """Why did it die? ``rules`` must end with one that always applies."""
    for rule in rules:
        signs = rule.seen(scene)
        if signs is not None:
            return _conclude(rule, signs, scene, replan)
    raise LookupError("no rule applies; the last one must")


def _conclude(rule: Rule, signs: Signs, scene: Scene, replan: Replan) -> Diagnosis:
    changes = list(rule.ways(scene, signs)) if rule.ways else []
    if rule.planned:
        changes = list(replan(changes))
    return Diagnosis(
        code=rule.code,
        cause=_filled(rule.cause, signs),
        evidence=signs.evidence,
        retryable=rule.retryable,
        changes=tuple(changes[:MOST_CHANGES]),
        fix=_filled(rule.fix, signs),
    )


class _Parts(dict[str, str]):
    """A sentence names what is known; what the signs did not tell is left out."""

    def __missing__(self, key: str) -> str:
        return ""


def _filled(sentence: str, signs: Signs) -> str:
    return sentence.format_map(_Parts(signs.parts)).strip()
