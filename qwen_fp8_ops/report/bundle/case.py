"""What a bundle is made of: this run's files, the environment, and the settings as they were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qwen_fp8_ops.config.load import Configuration, find_config_file, load
from qwen_fp8_ops.config.paths import RunPaths


@dataclass(frozen=True)
class Case:
    """``asked_file``, ``profiles`` and ``overrides`` are --config, --profile and --set; ``folder`` is the current one.

    ``last_lines``: so many of each log go in.
    """

    paths: RunPaths
    environ: Mapping[str, str]
    folder: Path
    asked_file: Path | None = None
    profiles: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    last_lines: int = 2000

    @cached_property
    def config_file(self) -> Path | None:
        """
        Raises:
            ConfigError: the file asked for does not exist.
        """
        return find_config_file(self.asked_file, self.folder, self.paths.home)

    @cached_property
    def configuration(self) -> Configuration:
        """
        Raises:
            ConfigError: with everything that is wrong.
        """
        return load(config_file=self.config_file, profiles=self.profiles, environ=self.environ, overrides=self.overrides)


@dataclass(frozen=True)
class Member:
    """One file of the bundle. ``problem`` is told in README.txt as well: why the text is not what it should be."""

    name: str
    text: str
    problem: str = ""
