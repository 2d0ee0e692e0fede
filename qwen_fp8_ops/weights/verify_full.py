"""Is every byte of the model folder what it should be? All files are hashed and compared with what is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights import manifest as manifests
from qwen_fp8_ops.weights.demo.recipe import LABEL
from qwen_fp8_ops.weights.hashing import Digest, Progress, hash_files
from qwen_fp8_ops.weights.hub import HubFile
from qwen_fp8_ops.weights.layout import INDEX
from qwen_fp8_ops.weights.manifest import Manifest, ManifestFile
from qwen_fp8_ops.weights.reference import Expected, Origin, expected_files
from qwen_fp8_ops.weights.verdict import Found, Verdict
from qwen_fp8_ops.weights.verify import VERIFY, is_needed, look

JUDGES = (INDEX, "config.json")
"""A shard is judged by these: where one of them is wrong, what it says of the shards counts for nothing."""


def verify_full(folder: Path, origin: Origin | None, heard: Callable[[Progress], None] | None = None, command: str = VERIFY) -> Verdict:
    """Look, hash, compare; then leave a manifest behind, where there was none or only its times were wrong.

    Args:
        origin: the Hub's repository to compare with, for a folder without a manifest; None for one that comes from nowhere.
    """
    found = look(folder, command)
    if found.is_bad("."):
        return found.verdict()
    return compare(found, expected_files(folder, origin), heard)


def compare(
    found: Found,
    expected: Expected,
    heard: Callable[[Progress], None] | None = None,
    *,
    only: Collection[str] | None = None,
    known: Mapping[str, Digest] | None = None,
) -> Verdict:
    """``only`` limits the hashing to these files; ``known`` are digests from a moment ago, good for files that have not changed since."""
    _tell_missing(found, expected)
    unread = set(found.of_kind(("missing", "unreadable")))
    names = [name for name in (expected.files or found.sizes) if name not in unread and (only is None or name in only) and (found.folder / name).is_file()]
    git_names = {name for name in names if name in expected.files and expected.files[name].sha256 is None}
    digests = {name: known[name] for name in names if known and name in known and known[name].is_of(found.folder / name)}
    names = [name for name in names if name not in digests]
    for name, result in hash_files(found.folder, names, git_names=git_names, heard=heard).items():
        if isinstance(result, Digest):
            digests[name] = result
        else:
            found.bad(name, f"cannot be read: {result.strerror or result}", "unreadable")
    found.sizes.update((name, digest.bytes) for name, digest in digests.items())
    _judge(found, expected, digests)
    notes = (*expected.notes, *_record(found, expected, digests, whole=only is None))
    return found.verdict(digests if only is None else None, expected.kind, notes)


def _tell_missing(found: Found, expected: Expected) -> None:
    """Files that the Hub has and an engine needs; those of a manifest are told by the look."""
    if expected.kind == "hub":
        for name in expected.files:
            if is_needed(name) and name not in found.sizes:
                found.bad(name, "is missing", "missing")


def _judge(found: Found, expected: Expected, digests: dict[str, Digest]) -> None:
    right = {name for name, digest in digests.items() if name in expected.files and _same(digest, expected.files[name])}
    wrong = {name for name in digests if name in expected.files} - right
    whose = {"manifest": "its manifest says", "hub": f"the Hub's at {expected.commit[:12]}", "recipe": "when it was made"}.get(expected.kind, "")
    judges_wrong = any(name in wrong for name in JUDGES)
    for name in right:
        # Right in every byte: a time that differs says nothing, and neither does an index that is wrong itself.
        if found.kind(name) == "stale" or (judges_wrong and name not in JUDGES):
            found.drop(name)
    for name in sorted(wrong):
        if found.kind(name) == "stale":
            found.drop(name)
        found.bad(name, f"has another content than {whose}")


def _same(digest: Digest, file: HubFile) -> bool:
    return digest.bytes == file.bytes and (digest.sha256 == file.sha256 if file.sha256 else digest.git_blob == file.git_blob)


def _record(found: Found, expected: Expected, digests: dict[str, Digest], *, whole: bool) -> tuple[str, ...]:
    """Write the manifest that this comparison earned; what could not be written is told as a note."""
    manifest = expected.manifest
    if manifest and not manifest.complete:
        return ()  # a download is under way, or will go on; the file is its own
    if manifest and manifest.revision:
        files = tuple(_refreshed(file, digests.get(file.name)) for file in manifest.files)
        new = dataclasses.replace(manifest, files=files)
    elif not whole or found.any_bad or (found.folder / LABEL).exists():
        return ()  # a demo checkpoint has its label, and its folder takes no file that is not the demo's
    else:
        new = _new_manifest(expected, digests)
    if new == manifest:
        return ()
    try:
        manifests.write(found.folder, new)
    except OpsError as error:
        return (f"The hashes could not be kept: {error.message}",)
    return ()


def _refreshed(file: ManifestFile, digest: Digest | None) -> ManifestFile:
    if digest is None or (digest.sha256, digest.bytes) != (file.sha256, file.bytes):
        return file
    return dataclasses.replace(file, mtime_ns=digest.mtime_ns)


def _new_manifest(expected: Expected, digests: dict[str, Digest]) -> Manifest:
    files = tuple(ManifestFile(name, digest.bytes, digest.sha256, digest.mtime_ns, digest.git_blob) for name, digest in sorted(digests.items()))
    # A README that nobody copied is as if it had not been asked for.
    absent = tuple(sorted(name for name in expected.files if name not in digests))
    return Manifest(expected.repo, expected.commit, expected.requested, files, complete=True, exclude=absent)
