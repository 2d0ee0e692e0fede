"""Whether an item is done: there is an outcome of the same request, and its files are still the same."""

from __future__ import annotations

from qwen_fp8_ops.client.batch.item import Inputs, Item, Outcome, Recipe
from qwen_fp8_ops.client.batch.prepare import NOTHING, content_hash, look_at
from qwen_fp8_ops.client.batch.records import Records
from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.client.media_files import MediaError


def kept(records: Records, recipe: Recipe, item: Item, *, retry_failed: bool) -> Outcome | None:
    """The outcome that makes it needless to ask this item; None when it is to be asked.

    Files are compared by size and time first. Where these differ, as after a copy, the content decides.
    """
    found = records.find(item.id)
    if found is None or found.asked != recipe.asked(item) or (retry_failed and not found.ok):
        return None
    return found if _same_files(item, found) else None


def _same_files(item: Item, found: Outcome) -> bool:
    if len(found.prints) != len(item.media):
        return False
    for source, before in zip(item.media, found.prints, strict=True):
        now = look_at(source)
        if now.like(before) or (now == NOTHING and found.ok):  # the file is gone, and its answer is there
            continue
        if not found.ok:
            return False  # it may have been mended
        try:
            if content_hash(source) != before.sha256:
                return False
        except MediaError:
            return False
    return True


def count_kept(records: Records, inputs: Inputs, tally: Tally) -> None:
    """Fill a tally from the records alone: what is done of these inputs, and what is missing."""
    total = 0
    for item in inputs:
        total += 1
        found = records.find(item.id)
        if found is not None:
            tally.keep(found)
    tally.total = total
