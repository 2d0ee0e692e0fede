"""Shares of one run, done by several processes, put together."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path

from qwen_fp8_ops.client.batch.files import ResultFiles
from qwen_fp8_ops.client.batch.inputs import Shard
from qwen_fp8_ops.client.batch.item import Recipe
from qwen_fp8_ops.client.batch.journal import Journal, lock_of
from qwen_fp8_ops.client.batch.records import Records
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import lock


def merge_shards(files: ResultFiles, *, overwrite: bool = False) -> tuple[Journal, tuple[Shard, ...]]:
    """Bring the outcomes of all shares into the journal of the whole, from which a later run can also go on.

    Args:
        overwrite: forget what the whole held before, which may be of other settings, or older than the shares.

    Returns:
        the journal, open, and the shares of which nothing was found.

    Raises:
        OpsError: there are no shares (code ``no-shards``); one is still being written; one is of another recipe.
    """
    journals = files.shard_journals()
    if not journals:
        raise OpsError(
            f"There are no shares to merge in {files.folder} ({files.stem}.shard-*)", code="no-shards", fix="Run the shares first: --shard 1/2, --shard 2/2"
        )
    for path in journals.values():
        _refuse_running(path)
    # Where there are shares of two runs, of 4 and then of 8, it is the later answer that counts.
    latest_first = sorted(journals.values(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    recipe = _recipe(latest_first[0])
    with ExitStack() as undo:
        whole = undo.enter_context(Journal(files.journal, recipe, overwrite=overwrite))
        answered: set[int] = set()
        for path in latest_first:
            _take_over(whole, path, answered)
        whole.sync()
        undo.pop_all()
    wanted = {Shard(number, shard.of) for shard in journals for number in range(1, shard.of + 1)}
    return whole, tuple(sorted(wanted - set(journals), key=lambda shard: (shard.of, shard.number)))


def _take_over(whole: Journal, path: Path, answered: set[int]) -> None:
    """
    Args:
        answered: hashes of the ids that shares have answered so far; those of this one are added.
    """
    with Records(path) as share:
        if share.head is not None and share.head["recipe"] != whole.head_recipe:
            raise OpsError(
                f"{path} is not of the same run as the others: its settings differ",
                code="other-recipe",
                fix="Move it away, or run this share again with --overwrite.",
            )
        for outcome in share:
            before = whole.find(outcome.id)
            newer = outcome.ok and hash(outcome.id) not in answered
            if before is None or (newer and (not before.ok or before.prints != outcome.prints)):
                whole.append(outcome)
            if outcome.ok:
                answered.add(hash(outcome.id))


def _refuse_running(path: Path) -> None:
    holder = lock.holder(lock_of(path))
    if holder is not None and (holder.alive or not holder.here):
        died = "" if holder.here else f" If it died there: {shlex.join(['rm', str(lock_of(path))])}"
        raise OpsError(
            f"The share {path.name} is still being written, by process {holder.pid} of {holder.host}",
            code="journal-in-use",
            fix=f"Merge when it has ended.{died}",
        )


def _recipe(path: Path) -> Recipe:
    with Records(path) as share:
        if share.head is None:
            raise OpsError(f"{path} is empty", code="damaged-file", fix="Run this share again.")
        return Recipe.from_json(share.head["recipe"])
