"""What every verb shares: the global options, wherever they stand, and the two ways to speak."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.config.paths import RunPaths, find_home
from qwen_fp8_ops.errors import ConfigError

if TYPE_CHECKING:
    from qwen_fp8_ops.config.load import Configuration
    from qwen_fp8_ops.config.settings import Settings
    from qwen_fp8_ops.report.console import Console


@dataclass
class Call:
    """The global options of one command line, gathered from before and after the verb."""

    config_file: Path | None = None
    profiles: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    speak_json: bool = False
    verbose: bool = False

    @functools.cached_property
    def paths(self) -> RunPaths:
        return RunPaths(find_home(os.environ, self.folder))

    @functools.cached_property
    def folder(self) -> Path:
        """
        Raises:
            ConfigError: the current folder was removed.
        """
        try:
            return Path.cwd()
        except FileNotFoundError:
            raise ConfigError("The current folder is gone", code="no-folder", fix="cd to one that exists, and run it again.") from None

    def configuration(self) -> Configuration:
        """
        Raises:
            ConfigError: with everything that is wrong.
        """
        from qwen_fp8_ops.config.load import find_config_file, load

        file = find_config_file(self.config_file, self.folder, self.paths.home)
        return load(config_file=file, profiles=self.profiles, environ=os.environ, overrides=self.overrides)

    def as_arguments(self) -> list[str]:
        """These options as words of a command line."""
        words = ["--config", str(self.config_file.resolve())] if self.config_file else []
        words += [word for name in self.profiles for word in ("--profile", name)]
        words += [word for text in self.overrides for word in ("--set", text)]
        return words

    def say(self, text: str = "") -> None:
        """Talk for a person: stderr, so that stdout stays data."""
        # Whoever read it may be gone, as ``tee`` is when Ctrl+C ends it first; what is being done is not to end with that.
        with contextlib.suppress(BrokenPipeError):
            print(text, file=sys.stderr, flush=True)

    def console(self, settings: Settings) -> Console:
        """What a start speaks through. With --json the status object is the result, given on stdout when the service is ready."""
        from qwen_fp8_ops.report.console import Console
        from qwen_fp8_ops.report.gpu_watch import GpuWatch
        from qwen_fp8_ops.report.screen import Screen
        from qwen_fp8_ops.report.status import collect, collect_for_gpus

        announce = (lambda: self.give(collect(self.paths), "")) if self.speak_json else None
        gpus = None if settings.on_cpu else GpuWatch(lambda: collect_for_gpus(self.paths, os.environ), Screen.of(sys.stderr))
        return Console(settings.log_format, settings.log_level, announce, gpus)

    def give(self, value: Any, text: str) -> None:
        """The verb's result: ``text`` for a person, ``value`` with --json."""
        print(json.dumps(value, ensure_ascii=False) if self.speak_json else text, flush=True)


def nobody_reads() -> None:
    """The reader of our stdout went away (``| head``): what is left to print goes nowhere. Python would else complain at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the global options and, as its first argument, the ``Call`` they belong to."""

    @click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings file; default: config.env here, then beside the wrappers."
    )
    @click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Apply a profile; may be repeated, later ones win.")
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key; may be repeated.")
    @click.option("--json", "speak_json", is_flag=True, help="Print one JSON object instead of text.")
    @click.option("--verbose", is_flag=True, help="Say more.")
    @click.pass_context
    @functools.wraps(function)
    def wrapped(
        context: click.Context,
        /,
        *args: Any,
        config_file: Path | None,
        profiles: tuple[str, ...],
        overrides: tuple[str, ...],
        speak_json: bool,
        verbose: bool,
        **options: Any,
    ) -> Any:
        call = context.ensure_object(Call)
        call.config_file = config_file or call.config_file
        call.profiles += profiles
        call.overrides += overrides
        call.speak_json |= speak_json
        call.verbose |= verbose
        return function(call, *args, **options)

    return wrapped
