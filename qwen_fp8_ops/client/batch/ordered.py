"""Outcomes in the order of the inputs, whatever order they came in."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.client.batch.item import Inputs, Outcome
from qwen_fp8_ops.client.batch.records import Records


def ordered(records: Records, inputs: Inputs) -> Iterator[Outcome]:
    """Those of the inputs first; then, as they came, the answers about inputs that are not there any more, or not among these. A
    failure of such a one is nobody's problem: it is left out.
    """
    seen: set[int] = set()
    for item in inputs:
        outcome = records.find(item.id)
        if outcome is not None:
            seen.add(hash(outcome.id))
            yield outcome
    if len(seen) < len(records):
        yield from (outcome for outcome in records if outcome.ok and hash(outcome.id) not in seen)
