"""Put right what a look found bad, and touch nothing else.

A bad file steps aside, into the folder that the download puts things aside in; its replacement is fetched and verified; only then
is it deleted. Where no replacement comes it steps back. Files that are no part of the checkpoint step aside and stay there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.errors import GaveUpError, OpsError
from qwen_fp8_ops.weights import manifest as manifests
from qwen_fp8_ops.weights.download import folder_to_ourselves
from qwen_fp8_ops.weights.fetch import aside_path, fetch_file
from qwen_fp8_ops.weights.hashing import Progress
from qwen_fp8_ops.weights.manifest import ManifestFile
from qwen_fp8_ops.weights.reference import Expected, Origin, expected_files
from qwen_fp8_ops.weights.room import disk_error
from qwen_fp8_ops.weights.verdict import Bad, Verdict
from qwen_fp8_ops.weights.verify import VERIFY, look
from qwen_fp8_ops.weights.verify_full import JUDGES, compare

Fetch = Callable[[str], ManifestFile]
"""Brings one file of the checkpoint into its place in the folder, verified."""


@dataclass(frozen=True)
class Repaired:
    """``failure`` is why it could not be done; ``kept`` is where what was in the file's place is now, where it was kept."""

    file: str
    kept: Path | None = None
    failure: OpsError | None = None


def mend(
    verdict: Verdict,
    origin: Origin | None,
    say: Callable[[str], None],
    heard: Callable[[Progress], None] | None = None,
    *,
    command: str = VERIFY,
    fetcher: Callable[[Expected], Fetch] | None = None,
) -> tuple[Verdict, tuple[Repaired, ...]]:
    """Repair what the verdict calls bad, and look again. Of a fast verdict only the suspects are hashed, before and after.

    Raises:
        OpsError: a download is at work in the folder, or it cannot be written.
    """
    folder = verdict.folder
    expected = expected_files(folder, origin)
    hashed = verdict.digests
    only = None if hashed is not None else frozenset({bad.file for bad in verdict.bad} | set(JUDGES))
    if hashed is None:
        verdict = compare(look(folder, command), expected, heard, only=only)
    with folder_to_ourselves(folder):
        repaired = repair(verdict, expected, (fetcher or _hub_fetch(folder))(expected), say)
    return compare(look(folder, command), expected_files(folder, origin), heard, only=only, known=hashed), repaired


def _hub_fetch(folder: Path) -> Callable[[Expected], Fetch]:
    return lambda expected: lambda name: fetch_file(expected.repo, expected.commit, name, folder)


def repair(verdict: Verdict, expected: Expected, fetch: Fetch, say: Callable[[str], None]) -> tuple[Repaired, ...]:
    """Mend each bad file. One that could not be mended does not keep the others from it, unless the Hub does not answer at all."""
    done: list[Repaired] = []
    nowhere = None if expected.commit else OpsError("Nobody is known who has it", code="no-source", fix="\n".join(expected.notes))
    for bad in verdict.bad:
        if not is_repairable(bad):
            continue
        try:
            if bad.kind == "extra":
                done.append(_put_aside_for_good(verdict.folder, bad, say))
            elif nowhere:
                done.append(Repaired(bad.file, failure=nowhere))
            else:
                done.append(_replace(verdict.folder, bad, fetch, say))
        except OpsError as error:
            done.append(Repaired(bad.file, failure=error))
            if isinstance(error, GaveUpError):
                nowhere = error
    return tuple(done)


def is_repairable(bad: Bad) -> bool:
    """Can another copy of the file help? Not with the folder itself, its manifest, or a file whose content is fine."""
    return bad.file not in (".", manifests.FILE) and bad.kind != "stale"


def _put_aside_for_good(folder: Path, bad: Bad, say: Callable[[str], None]) -> Repaired:
    kept = _step_aside(folder, bad.file)
    say(f"{bad.file} is put aside as {kept}")
    return Repaired(bad.file, kept)


def _replace(folder: Path, bad: Bad, fetch: Fetch, say: Callable[[str], None]) -> Repaired:
    say(f"{bad}; fetching it")
    target = folder / bad.file
    kept = _step_aside(folder, bad.file) if os.path.lexists(target) else None
    with contextlib.ExitStack() as undo:  # at Ctrl+C as well: the folder must not be worse than before
        if kept:
            undo.callback(_put_back, kept, target)
        file = fetch(bad.file)
        undo.pop_all()
    _note(folder, file)
    if kept is None or kept.is_dir():
        return Repaired(bad.file, kept)  # a folder may hold anything; it is not ours to delete
    with contextlib.suppress(OSError):
        kept.unlink()
    return Repaired(bad.file)


def _step_aside(folder: Path, name: str) -> Path:
    kept = aside_path(folder, name)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, kept)
    except OSError as error:
        raise disk_error(folder / name, error) from error
    return kept


def _put_back(kept: Path, target: Path) -> None:
    if not os.path.lexists(target):
        os.replace(kept, target)


def _note(folder: Path, file: ManifestFile) -> None:
    """The manifest learns of the new file at once: an interruption must not make it bad again."""
    manifest = manifests.read(folder)
    if manifest and manifest.revision:
        files = {**{known.name: known for known in manifest.files}, file.name: file}
        manifests.write(folder, dataclasses.replace(manifest, files=tuple(files.values())))
