"""The distributions of one environment: which part of the project wants each, its licence, and whether its files are those of its wheel."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from venv_setup.project import CORE, Project

READ_BYTES = 1 << 20
LONGEST_LICENCE = 60
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Installed:
    """``wanted_by``: extras of the project (``core`` for its plain dependencies) that need it, directly or not; empty for what nothing of ours
    asks for. ``faults``: files that are missing or are not what RECORD says.
    """

    name: str
    version: str
    wanted_by: tuple[str, ...]
    licence: str
    faults: tuple[str, ...]


def read_installed(project: Project, path: list[str], *, own_name: str) -> list[Installed]:
    """
    Args:
        path: where distributions are looked for, as ``sys.path``; of two of one name the first counts, as for an import.
        own_name: the project itself, which is left out.
    """
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=path):
        found.setdefault(canonicalize_name(distribution.name), distribution)
    found.pop(canonicalize_name(own_name), None)
    wanted = {part: closure(asks, found) for part, asks in {CORE: project.dependencies, **project.extras}.items()}
    return [
        Installed(name, one.version, tuple(part for part, names in wanted.items() if name in names), licence_of(one), record_faults(one))
        for name, one in sorted(found.items())
    ]


def incomplete_extras(project: Project, names: Iterable[str]) -> list[str]:
    """Extras of which a direct requirement is not there: their distributions are not judged."""
    here = set(names)
    return [extra for extra, asks in project.extras.items() if any(canonicalize_name(Requirement(text).name) not in here for text in asks)]


def closure(asks: Iterable[str], found: Mapping[str, metadata.Distribution]) -> set[str]:
    """Names of the installed distributions that these requirements lead to. What is not installed leads nowhere."""
    queue = deque((Requirement(text), frozenset[str]()) for text in asks)
    done: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement, extras_of_parent = queue.popleft()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in (extras_of_parent or {""})):
            continue
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name not in found or (name, extras) in done:
            continue
        done.add((name, extras))
        queue.extend((child, extras) for child in requirements_of(found[name]))
    return {name for name, _ in done}


def requirements_of(distribution: metadata.Distribution) -> list[Requirement]:
    found = []
    for text in distribution.requires or ():
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            continue  # of an old package; pip would have refused what it cannot read
    return found


def licence_of(distribution: metadata.Distribution) -> str:
    """As the package says it: an SPDX expression, else its classifiers, else the first line of its free text."""
    about = distribution.metadata
    if "License-Expression" in about:
        return about["License-Expression"]
    classes = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    text = about["License"].strip().partition("\n")[0] if "License" in about else ""
    return " / ".join(classes) or text[:LONGEST_LICENCE] or "unknown"


def record_faults(distribution: metadata.Distribution) -> tuple[str, ...]:
    """What differs from RECORD, which pip wrote from the wheel: files gone, files changed. RECORD itself has no hash there, and byte code is
    passed over: Python writes it anew as it likes.
    """
    files = distribution.files
    if distribution.read_text("RECORD") is None or files is None:
        return ("it has no RECORD, so nothing of it can be checked",)
    faults = []
    for file in files:
        if file.hash is None or file.suffix == ".pyc":
            continue
        path = Path(str(file.locate()))
        try:
            right = digest(path, file.hash.mode) == file.hash.value
        except FileNotFoundError:
            faults.append(f"{file} is gone")
        except (OSError, ValueError) as error:
            faults.append(f"{file} cannot be checked: {error}")
        else:
            if not right:
                faults.append(f"{file} is not what was installed")
    rest = len(faults) - SHOWN_FAULTS
    return (*faults[:SHOWN_FAULTS], *([f"and {rest} more"] if rest > 0 else []))


def digest(path: Path, method: str) -> str:
    """As RECORD writes it: URL-safe base64 without padding.

    Raises:
        ValueError: there is no such hash method.
    """
    total = hashlib.new(method)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            total.update(piece)
    return base64.urlsafe_b64encode(total.digest()).rstrip(b"=").decode()
