"""What the files of a model folder should be: by its manifest, by the Hub, or by the recipe that made them here."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights import manifest as manifests
from qwen_fp8_ops.weights.demo.recipe import read_label
from qwen_fp8_ops.weights.hub import Hub, HubFile
from qwen_fp8_ops.weights.manifest import Manifest
from qwen_fp8_ops.weights.verdict import Reference


@dataclass(frozen=True)
class Origin:
    """Where the folder's content is said to come from, for one that does not know itself."""

    repo: str
    revision: str


@dataclass(frozen=True)
class Expected:
    """``files`` by name. A file can be fetched again from ``repo`` at ``commit``; from nowhere, when the commit is empty."""

    kind: Reference
    files: Mapping[str, HubFile] = field(default_factory=dict)
    repo: str = ""
    commit: str = ""
    requested: str = ""
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


def expected_files(folder: Path, origin: Origin | None) -> Expected:
    """The best there is: a manifest that names its commit; the Hub, if it can be asked; a manifest of unknown origin; the demo's label."""
    manifest = _read_manifest(folder)
    if manifest and manifest.revision:
        return _by_manifest(manifest)
    label = read_label(folder)
    if label:
        files = {name: HubFile(name, label.files[name], digest, None) for name, digest in label.sha256.items() if name in label.files}
        return Expected("recipe", files) if files else Expected("nothing", notes=("This demo checkpoint has no recorded hashes: an older version made it.",))
    notes: tuple[str, ...] = ()
    if origin:
        try:
            return _by_hub(Origin(origin.repo, _commit_it_knows(folder) or origin.revision), origin.revision, manifest)
        except OpsError as error:
            notes = (f"Not compared with the Hub: {error.message}",)
    if manifest:
        return dataclasses.replace(_by_manifest(manifest), notes=notes)
    return Expected("nothing", repo=origin.repo if origin else "", requested=origin.revision if origin else "", notes=notes)


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        return manifests.read(folder)
    except OpsError:
        return None  # the fast look tells it


def _by_manifest(manifest: Manifest) -> Expected:
    files = {file.name: HubFile(file.name, file.bytes, file.sha256, None) for file in manifest.files}
    return Expected("manifest", files, manifest.repo, manifest.revision, manifest.requested, manifest)


def _commit_it_knows(folder: Path) -> str:
    """The commit that other tools left word of: `hf download --local-dir` beside the files, their cache in the folder's own name."""
    words = [folder.name]
    with contextlib.suppress(OSError, ValueError):
        words += (folder / ".cache/huggingface/download/config.json.metadata").read_text(encoding="utf-8").split()[:1]
    return next((word for word in words if re.fullmatch(r"[0-9a-f]{40}", word)), "")


def _by_hub(origin: Origin, requested: str, manifest: Manifest | None) -> Expected:
    hub = Hub.from_environment()
    commit = hub.commit(origin.repo, origin.revision)
    files = {file.name: file for file in hub.files(origin.repo, commit)}
    return Expected("hub", files, origin.repo, commit, requested, manifest)
