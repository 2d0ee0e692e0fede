"""Everything a start will do, as data: which programs, with which command lines, ready when. Pure; the supervisor carries it out.

The plan is a list of programs: nothing that reads it may assume that there is one engine.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.load import Configuration, load
from qwen_fp8_ops.config.paths import PACKAGE, RunPaths
from qwen_fp8_ops.config.settings import OPTIONS, Settings
from qwen_fp8_ops.engine.command import engine_command
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.net import url

SCHEMA = 1
RUN_MARK = "QWEN_FP8_RUN"
"""Environment variable that names the run's folder in each of its programs."""

MEDIA_STOP_SECONDS = 3
ENGINE_STOP_SECONDS = 15
"""After SIGTERM and the drain; vLLM gives its workers 5 s and 4 s more before it kills them itself."""


@dataclass(frozen=True)
class Program:
    """One child of the supervisor.

    ``env`` is added to the supervisor's own environment. ``url`` is what clients use, ``health_url`` answers 200 when it can
    serve. Times are seconds.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: str
    host: str
    port: int
    url: str
    health_url: str
    ready_seconds: int
    stop_seconds: int
    needs: tuple[str, ...] = ()

    @property
    def is_engine(self) -> bool:
        return self.role == "engine"

    @property
    def base_url(self) -> str:
        """Where the program's own routes begin; ``url`` may go on with the API's version."""
        return self.url.removesuffix("/v1")

    def shell_line(self) -> str:
        """The command as it could be pasted into a shell."""
        return " ".join([*(f"{key}={shlex.quote(value)}" for key, value in self.env.items()), shlex.join(self.argv)])


@dataclass(frozen=True)
class Invocation:
    """How the settings were asked for, so that ``restart`` asks the same way again."""

    config_file: str | None
    profiles: tuple[str, ...]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class LaunchPlan:
    home: Path
    profile: str
    invocation: Invocation
    texts: Mapping[str, str]
    settings: Settings
    model_path: Path
    media_root: Path
    api_keys_file: Path | None
    programs: tuple[Program, ...]

    @property
    def engines(self) -> tuple[Program, ...]:
        return tuple(program for program in self.programs if program.is_engine)

    @property
    def media(self) -> Program:
        return next(program for program in self.programs if program.role == "media")

    @property
    def url(self) -> str:
        """Base URL of the API, as an OpenAI client wants it."""
        return self.engines[0].url

    @property
    def owns_media_root(self) -> bool:
        """The default root is ours to make; one that was named must be there, for a typing error would serve an empty folder."""
        return self.media_root == self.home / OPTIONS["MEDIA_ROOT"].default

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
                invocation=Invocation(asked["config_file"], tuple(asked["profiles"]), tuple(asked["overrides"])),
                texts=texts,
                settings=load(overrides=[f"{key}={text}" for key, text in texts.items()]).settings,
                model_path=Path(value["model_path"]),
                media_root=Path(value["media_root"]),
                api_keys_file=Path(value["api_keys_file"]) if value["api_keys_file"] else None,
                programs=tuple(
                    Program(**{**program, "argv": tuple(program["argv"]), "needs": tuple(program["needs"])}) for program in value["programs"]
                ),
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
    media = _media_program(settings, paths, media_root, python)
    return LaunchPlan(
        home=paths.home,
        profile=configuration.profile,
        invocation=Invocation(str(configuration.config_file.resolve()) if configuration.config_file else None, configuration.profiles, configuration.overrides),
        texts={key: source.text for key, source in configuration.sources.items()},
        settings=settings,
        model_path=model_path,
        media_root=media_root,
        api_keys_file=settings.folder(settings.api_keys_file, paths.home) if settings.api_keys_file else None,
        programs=(media, _engine_program(settings, paths, model_path, python, load_strategy)),
    )


def _engine_program(settings: Settings, paths: RunPaths, model_path: Path, python: str, load_strategy: str | None) -> Program:
    command = engine_command(settings, python=python, model=model_path, gate_file=paths.gate, port=settings.port, load_strategy=load_strategy)
    return Program(
        name="engine0",
        role="engine",
        argv=command.argv,
        env={**command.env, **_common_environment(paths)},
        log=str(paths.service_log),
        host=settings.host,
        port=settings.port,
        url=url(settings.host, settings.port, "/v1"),
        health_url=url(settings.host, settings.port, "/health"),
        ready_seconds=settings.start_timeout,
        stop_seconds=ENGINE_STOP_SECONDS,
    )


def _media_program(settings: Settings, paths: RunPaths, root: Path, python: str) -> Program:
    return Program(
        name="media",
        role="media",
        argv=(python, "-P", "-m", "qwen_fp8_ops.media", "--root", str(root), "--host", settings.media_host, "--port", str(settings.media_port)),
        env=_common_environment(paths),
        log=str(paths.media_log),
        host=settings.media_host,
        port=settings.media_port,
        url=url(settings.media_host, settings.media_port),
        health_url=url(settings.media_host, settings.media_port, "/_health"),
        ready_seconds=30,
        stop_seconds=MEDIA_STOP_SECONDS,
    )


def _common_environment(paths: RunPaths) -> dict[str, str]:
    """RUN_MARK marks every process of the run, so that a later start finds it even when no record of it was written."""
    environment = {RUN_MARK: str(paths.run), "PYTHONUNBUFFERED": "1"}
    checkout = PACKAGE.parent
    if (checkout / "start_service.sh").exists():
        environment["PYTHONPATH"] = str(checkout)  # run from a checkout, the children must find this package too
    return environment


def describe(plan: LaunchPlan) -> str:
    """The plan for a person: each program's command, ready to paste."""
    return "\n\n".join(f"# {program.name}\n{program.shell_line()}" for program in plan.programs)


