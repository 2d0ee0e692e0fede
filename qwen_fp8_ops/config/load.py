"""Layers of text in, one checked ``Settings`` out; every value remembers where it came from.

Order, lowest first: built-in default, config.env, profiles in the order given, QWEN_FP8_* variables, --set. All that is wrong
is told at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.env_file import Entry, read_env_file, shown
from qwen_fp8_ops.config.kinds import AUTO_PORT
from qwen_fp8_ops.config.settings import OPTIONS, Settings
from qwen_fp8_ops.errors import ConfigError

PREFIX = "QWEN_FP8_"
NOT_KEYS = frozenset({"HOME", "PYTHON", "TORCH_INDEX", "GATE", "RUN"})
"""QWEN_FP8_ variables that are not settings: the run's folder, and what the wrappers and the children are told."""

PROFILES = Path(__file__).parent / "profiles"
DEFAULT_PROFILE = "h100x8"


@dataclass(frozen=True)
class Source:
    """Where a value came from, and its text there.

    ``origin``: ``default``, ``config.env line 12``, ``profile demo line 3``, ``QWEN_FP8_PORT`` or ``--set``.
    """

    origin: str
    text: str


@dataclass(frozen=True)
class Configuration:
    """Settings, the source of each value by key, and what it takes to resolve them again."""

    settings: Settings
    sources: Mapping[str, Source]
    profiles: tuple[str, ...]
    config_file: Path | None
    overrides: tuple[str, ...]

    @property
    def profile(self) -> str:
        return "+".join(self.profiles) or DEFAULT_PROFILE


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.env"))


def find_config_file(asked: Path | None, folder: Path, home: Path) -> Path | None:
    """config.env: the one asked for, else in the current folder, else in ``home``; None when there is none.

    One that is there but cannot be read is found as well: ``load`` says what is wrong with it, where passing it over would
    start the service with other settings.

    Raises:
        ConfigError: the file asked for does not exist.
    """
    if asked is not None:
        if not os.path.lexists(asked):
            raise ConfigError(f"Configuration file not found: {asked}", fix="Name an existing file with --config FILE.")
        return asked
    return next((path for path in (folder / "config.env", home / "config.env") if os.path.lexists(path)), None)


def load(
    *,
    config_file: Path | None = None,
    profiles: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Configuration:
    """Resolve the settings.

    Args:
        overrides: ``KEY=VALUE`` texts of --set; of several for one key the last counts.

    Raises:
        ConfigError: with every problem found, one a line.
    """
    problems: list[str] = []
    entries = [*_from_files(config_file, profiles), *_from_environment(environ or {}), *_from_flags(overrides)]
    values, sources = _parse(entries, problems)
    if not problems:
        problems += _contradictions(Settings(**values), sources)
    if problems:
        raise _error(problems, config_file)
    return Configuration(Settings(**values), sources, tuple(profiles), config_file, tuple(overrides))


def nearest_keys(key: str, prefix: str = "") -> str:
    """The ending of a message about an unknown key: what could have been meant, each with ``prefix``."""
    name = key.upper().removeprefix(PREFIX)
    names = [name] if name in OPTIONS else difflib.get_close_matches(name, OPTIONS, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(prefix + name for name in names)}?" if names else "; `qwen-fp8 config` lists the keys"


def _error(problems: Sequence[str], config_file: Path | None) -> ConfigError:
    where = f" ({config_file})" if config_file is not None and any(problem.startswith(config_file.name) for problem in problems) else ""
    head = "The configuration is wrong" if len(problems) == 1 else f"The configuration has {len(problems)} errors"
    return ConfigError(
        "\n  ".join([f"{head}{where}:", *problems]),
        fix="Correct what is named above; every key is explained in config.env and in the README.",
    )


def _from_files(config_file: Path | None, profiles: Sequence[str]) -> Iterator[Entry]:
    if config_file is not None:
        yield from read_env_file(config_file, config_file.name or str(config_file))
    names = profile_names()
    for name in profiles:
        if name in names:
            yield from read_env_file(PROFILES / f"{name}.env", f"profile {name}")
        else:
            yield Entry(f"--profile {shown(name)}", problem=f"no such profile; there are {', '.join(names)}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[Entry]:
    for variable, text in sorted(environ.items()):
        key = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and key not in NOT_KEYS:
            yield Entry(variable, key, text)


def _from_flags(overrides: Sequence[str]) -> Iterator[Entry]:
    for words in overrides:
        key, equals, text = words.partition("=")
        if equals:
            yield Entry("--set", key.strip(), text)
        else:
            yield Entry(f"--set {shown(words)}", problem="not of the form KEY=VALUE")


def _parse(entries: Iterable[Entry], problems: list[str]) -> tuple[dict[str, Any], dict[str, Source]]:
    values: dict[str, Any] = {}
    sources = {key: Source("default", row.default) for key, row in OPTIONS.items()}
    for entry in entries:
        if entry.problem:
            problems.append(f"{shown(entry.origin)}: {entry.problem}")
            continue
        row = OPTIONS.get(entry.key)
        if row is None:
            from_environment = entry.origin.startswith(PREFIX)
            what = "no key has this name" if from_environment else f"unknown key {shown(entry.key)}"
            problems.append(f"{shown(entry.origin)}: {what}{nearest_keys(entry.key, PREFIX if from_environment else '')}")
            continue
        text = entry.text.strip()
        try:
            values[entry.key.lower()] = row.kind.parse(text)
        except ValueError as error:
            reason = f"{error}; allowed: {row.kind.allowed()}" if text else f"a value is needed: {row.kind.allowed()}; the default is {row.default}"
            problems.append(f"{entry.origin}: {entry.key}={shown(text)}: {reason}")
            continue
        sources[entry.key] = Source(entry.origin, text)
    return values, sources


def _contradictions(settings: Settings, sources: Mapping[str, Source]) -> list[str]:
    """What no single key can tell."""

    def said(key: str) -> str:
        return f"{key}={sources[key].text} ({sources[key].origin})"

    found = []
    if settings.gpu_count and settings.tensor_parallel_size > settings.gpu_count:
        found.append(f"{said('TENSOR_PARALLEL_SIZE')} is more than {said('GPU_COUNT')}")
    if settings.port == settings.media_port != AUTO_PORT:
        found.append(f"{said('PORT')} and {said('MEDIA_PORT')} are the same port")
    if settings.max_num_batched_tokens < settings.max_num_seqs:
        found.append(f"{said('MAX_NUM_BATCHED_TOKENS')} is less than {said('MAX_NUM_SEQS')}: every running request takes a token of each step")
    return found
