"""The programs of a plan, from its settings: the weight cache where there is one, the media server, the engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qwen_fp8_ops.config.paths import PACKAGE, RunPaths
from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.command import engine_command, weight_cache_command
from qwen_fp8_ops.outside.net import url
from qwen_fp8_ops.plan.program import RUN_MARK, WEIGHT_CACHE, Program

MEDIA_STOP_SECONDS = 3
WEIGHT_CACHE_STOP_SECONDS = 15
ENGINE_STOP_SECONDS = 15
"""After SIGTERM and the drain; vLLM gives its workers 5 s and 4 s more before it kills them itself."""


@dataclass(frozen=True)
class Origin:
    """What programs are made from."""

    settings: Settings
    paths: RunPaths
    model_path: Path
    media_root: Path
    python: str
    load_strategy: str | None


def programs_of(origin: Origin) -> tuple[Program, ...]:
    """In the order of their end, the first last: an engine lets go of the weights before they go.

    Raises:
        ConfigError: VLLM_EXTRA_ARGS sets what a key of ours sets.
    """
    engine, media = _engine(origin), _media(origin)
    return (_weight_cache(origin), media, engine) if origin.settings.weight_cache else (media, engine)


def _engine(origin: Origin) -> Program:
    settings, paths = origin.settings, origin.paths
    make = partial(
        engine_command, settings, python=origin.python, model=origin.model_path, gate_file=paths.gate, port=settings.port, load_strategy=origin.load_strategy
    )
    alone = make()
    command = make(sockets=paths.weight_sockets) if settings.weight_cache else alone
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
        needs=(WEIGHT_CACHE,) if settings.weight_cache else (),
        argv_alone=alone.argv if settings.weight_cache else (),
    )


def _weight_cache(origin: Origin) -> Program:
    settings, paths = origin.settings, origin.paths
    command = weight_cache_command(settings, python=origin.python, model=origin.model_path, sockets=paths.weight_sockets, load_strategy=origin.load_strategy)
    return Program(
        name=WEIGHT_CACHE,
        role=WEIGHT_CACHE,
        argv=command.argv,
        env={**command.env, **_common_environment(paths)},
        log=str(paths.weight_cache_log),
        host="",
        port=0,
        url="",
        health_url="",
        ready_seconds=settings.start_timeout,
        stop_seconds=WEIGHT_CACHE_STOP_SECONDS,
        sockets=str(paths.weight_sockets),
        ranks=settings.tensor_parallel_size,
    )


def _media(origin: Origin) -> Program:
    settings, paths = origin.settings, origin.paths
    return Program(
        name="media",
        role="media",
        argv=(
            origin.python,
            "-P",
            "-m",
            "qwen_fp8_ops.media",
            "--root",
            str(origin.media_root),
            "--host",
            settings.media_host,
            "--port",
            str(settings.media_port),
        ),
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
