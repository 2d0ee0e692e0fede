"""Everything a start will do, as data: which programs, with which command lines, ready when. Pure; the supervisor carries it out.

The plan is a list of programs: nothing that reads it may assume that there is one engine.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.load import Configuration, load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import OPTIONS, Settings
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.plan.program import Program
from qwen_fp8_ops.plan.programs import Origin, programs_of

SCHEMA = 1


@dataclass(frozen=True)
class Invocation:
    """How the settings were asked for, so that ``restart`` asks the same way again. ``forced``: codes of checks that were overruled."""

    config_file: str | None
    profiles: tuple[str, ...]
    overrides: tuple[str, ...]
    forced: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchPlan:
    """``load_strategy`` is what LOAD_STRATEGY=auto came to, None where it was left to the engine."""

    home: Path
    profile: str
    invocation: Invocation
    texts: Mapping[str, str]
    settings: Settings
    model_path: Path
    media_root: Path
    api_keys_file: Path | None
    programs: tuple[Program, ...]
    load_strategy: str | None = None

    @property
    def engines(self) -> tuple[Program, ...]:
        return tuple(program for program in self.programs if program.is_engine)

    @property
    def media(self) -> Program:
        return next(program for program in self.programs if program.role == "media")

    @property
    def weight_cache(self) -> Program | None:
        return next((program for program in self.programs if program.is_weight_cache), None)

    @property
    def url(self) -> str:
        """Base URL of the API, as an OpenAI client wants it."""
        return self.engines[0].url

    @property
    def owns_media_root(self) -> bool:
        """The default root is ours to make; one that was named must be there, for a typing error would serve an empty folder."""
        return self.media_root == self.home / OPTIONS["MEDIA_ROOT"].default

    def forcing(self, codes: Collection[str]) -> LaunchPlan:
        """The same plan, which knows that these checks were overruled as well."""
        known = dict.fromkeys([*self.invocation.forced, *codes])
        return replace(self, invocation=replace(self.invocation, forced=tuple(known)))

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "home": str(self.home),
            "profile": self.profile,
            "invocation": asdict(self.invocation),
            "settings": dict(self.texts),
            "model_path": str(self.model_path),
            "media_root": str(self.media_root),
            "api_keys_file": str(self.api_keys_file) if self.api_keys_file else None,
            "url": self.url,
            "load_strategy": self.load_strategy,
            "programs": [{**asdict(program), "env": dict(program.env)} for program in self.programs],
        }

    @classmethod
    def from_json(cls, value: Any) -> LaunchPlan:
        """
        Raises:
            OpsError: it was written by another version, or damaged.
        """
        try:
            if value["schema"] != SCHEMA:
                raise OpsError(f"The plan has schema {value['schema']}, this version reads {SCHEMA}", fix="Stop the service with the version that started it.")
            texts = dict(value["settings"])
            asked = value["invocation"]
            return cls(
                home=Path(value["home"]),
                profile=value["profile"],
                invocation=Invocation(asked["config_file"], tuple(asked["profiles"]), tuple(asked["overrides"]), tuple(asked.get("forced", ()))),
                texts=texts,
                settings=load(overrides=[f"{key}={text}" for key, text in texts.items()]).settings,
                model_path=Path(value["model_path"]),
                media_root=Path(value["media_root"]),
                api_keys_file=Path(value["api_keys_file"]) if value["api_keys_file"] else None,
                programs=tuple(Program.from_json(program) for program in value["programs"]),
                load_strategy=value.get("load_strategy"),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise OpsError(f"The plan is damaged: {error!r}", code="damaged-file", fix="Start again: ./start_service.sh") from error


def make_plan(configuration: Configuration, paths: RunPaths, *, python: str = sys.executable, load_strategy: str | None = None) -> LaunchPlan:
    """
    Args:
        load_strategy: what LOAD_STRATEGY=auto comes to on this machine (``plan.load_strategy``); None leaves it to the engine.

    Raises:
        ConfigError: VLLM_EXTRA_ARGS sets what a key of ours sets.
    """
    settings = configuration.settings
    model_path = settings.folder(settings.model_path, paths.home)
    media_root = settings.folder(settings.media_root, paths.home)
    return LaunchPlan(
        home=paths.home,
        profile=configuration.profile,
        invocation=Invocation(str(configuration.config_file.resolve()) if configuration.config_file else None, configuration.profiles, configuration.overrides),
        texts={key: source.text for key, source in configuration.sources.items()},
        settings=settings,
        model_path=model_path,
        media_root=media_root,
        api_keys_file=settings.folder(settings.api_keys_file, paths.home) if settings.api_keys_file else None,
        programs=programs_of(Origin(settings, paths, model_path, media_root, python, load_strategy)),
        load_strategy=load_strategy,
    )


def describe(plan: LaunchPlan) -> str:
    """The plan for a person: each program's command, ready to paste."""
    return "\n\n".join(f"# {program.name}\n{program.shell_line()}" for program in plan.programs)
