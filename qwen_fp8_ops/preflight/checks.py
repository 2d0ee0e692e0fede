"""What must hold before a start: one small function per check. Each reads only, never raises, and tells what it saw."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.keys import read_keys
from qwen_fp8_ops.outside import nvml, slurm
from qwen_fp8_ops.outside.media_health import health, root_id
from qwen_fp8_ops.outside.net import is_loopback, port_owner
from qwen_fp8_ops.plan.launch import LaunchPlan, Program
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.memory import check_memory
from qwen_fp8_ops.preflight.weights import check_weights
from qwen_fp8_ops.slurm.allocation import salloc_line

LOW_DISK_BYTES = 1 << 30
HEALTH_SECONDS = 2.0


@dataclass(frozen=True)
class Subject:
    """What is checked: the plan, the run's files, and the environment the service would start in."""

    plan: LaunchPlan
    paths: RunPaths
    environ: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return self.plan.settings


def run_checks(subject: Subject) -> tuple[Finding, ...]:
    """All of them, in an order that reads from the machine up to the service."""
    return tuple(finding for check in CHECKS for finding in _findings(check, subject))


def _findings(check: Callable[[Subject], Iterator[Finding]], subject: Subject) -> list[Finding]:
    """What a check found; one that could not even look has found that. A path can be too long, a folder closed, a name no name."""
    found = []
    try:
        for finding in check(subject):
            found.append(finding)  # noqa: PERF402 - what it found before it failed is kept
    except (OSError, ValueError) as error:
        code = check.__name__.removeprefix("check_").replace("_", "-")
        found.append(Finding(code, "fail", f"The {code} could not be checked: {error}", "Correct what it names; `qwen-fp8 config` shows every setting."))
    return found


def check_allocation(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    wanted = settings.require_slurm == "on" or (settings.require_slurm == "auto" and settings.gpu_count > 0 and slurm.installed())
    if subject.environ.get("SLURM_JOB_ID"):
        yield Finding("slurm-allocation", "pass", f"inside job {subject.environ['SLURM_JOB_ID']}")
    elif wanted:
        yield Finding("slurm-allocation", "fail", "Not inside a SLURM allocation", f"{salloc_line(settings)}\nOr set REQUIRE_SLURM=off.")


def check_gpus(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    if settings.on_cpu:
        yield Finding("gpu-count", "pass", "no GPU needed (GPU_COUNT=0): the engine runs on the CPU")
        return
    found = nvml.snapshot()
    working = [gpu for gpu in found.gpus if not gpu.lost]
    if len(working) >= settings.gpu_count:
        yield Finding("gpu-count", "pass", f"{len(working)} GPUs")
        return
    reasons = [found.problem] if found.problem else [f"GPU {gpu.index}: {'; '.join(gpu.problems)}" for gpu in found.gpus if gpu.lost]
    reason = f" ({', '.join(reasons)})" if reasons else ""
    fix = f"{salloc_line(settings)}\nOr without a GPU: ./start_service.sh --profile demo"
    yield Finding("gpu-count", "fail", f"Requested {settings.gpu_count} GPUs but only {len(working)} available{reason}", fix)


def check_engine(subject: Subject) -> Iterator[Finding]:
    extra = "cpu" if subject.settings.on_cpu else "gpu"
    if importlib.util.find_spec("vllm") is None:
        yield Finding("engine-installed", "fail", "vLLM is not installed in this Python", f"python3 scripts/setup_venv.py --extra {extra}")
    else:
        yield Finding("engine-installed", "pass", "vLLM is installed")


def check_model(subject: Subject) -> Iterator[Finding]:
    path = subject.plan.model_path
    if (path / "config.json").is_file():
        yield Finding("model-present", "pass", str(path))
    elif subject.settings.is_demo_model:
        yield Finding("model-present", "pass", f"{path} is made at the start")
    else:
        yield Finding("model-present", "fail", f"Model not found at {path}", "./download_model.sh\nOr set MODEL_PATH to the folder that has it.")


def check_ports(subject: Subject) -> Iterator[Finding]:
    for engine in subject.plan.engines:
        yield _check_port(engine, f"{engine.name}-port", "PORT")
    if media_is_served(subject.plan):
        yield Finding("media-port", "pass", "a media server of ours serves this root already; it is used")
    else:
        yield _check_port(subject.plan.media, "media-port", "MEDIA_PORT")


def media_is_served(plan: LaunchPlan) -> bool:
    """Does a media server of ours, started by somebody else, serve the same root on the same port?"""
    found = health(plan.media.host, plan.media.port, HEALTH_SECONDS)
    return found is not None and found.root_id == root_id(plan.media_root)


def _check_port(program: Program, code: str, key: str) -> Finding:
    try:
        owner = port_owner(program.host, program.port)
    except OSError as error:
        fix = f"Set {key} to 1024 or more." if isinstance(error, PermissionError) else f"Set {key.replace('PORT', 'HOST')} to an address of this machine."
        return Finding(code, "fail", f"Cannot listen on {program.host}:{program.port}: {error.strerror or error}", fix)
    if owner is None:
        return Finding(code, "pass", f"port {program.port} is free")
    end = f"kill {owner.pid}" if owner.pid else f"lsof -i :{program.port}"
    return Finding(code, "fail", f"Port {program.port} is already in use ({owner})", f"./stop_service.sh, if it is ours; else end it ({end})\nOr choose another: --set {key}=...")


def check_access(subject: Subject) -> Iterator[Finding]:
    settings, keys_file = subject.settings, subject.plan.api_keys_file
    if keys_file is None:
        if is_loopback(settings.host):
            yield Finding("access", "pass", f"listens on {settings.host} only, no key asked for")
        else:
            yield Finding("access", "fail", f"HOST={settings.host} would open the API to the network without a key", _make_keys("api_keys"))
        return
    try:
        names = read_keys(keys_file)
    except OpsError as error:
        yield Finding("access", "fail", error.message, error.fix or _make_keys(str(keys_file)))
        return
    if names:
        yield Finding("access", "pass", f"{len(names)} keys in {keys_file}")
    else:
        yield Finding("access", "fail", f"No key in {keys_file}", _make_keys(str(keys_file)))


def _make_keys(path: str) -> str:
    return f"(umask 077; echo \"me:$(openssl rand -hex 24)\" >> {shlex.quote(path)})\nthen set API_KEYS_FILE={path} in config.env, or HOST=127.0.0.1."


def check_media_root(subject: Subject) -> Iterator[Finding]:
    root = subject.plan.media_root
    if root.is_dir() and os.access(root, os.R_OK | os.X_OK):
        yield Finding("media-root", "pass", str(root))
    elif root.exists():
        yield Finding("media-root", "fail", f"MEDIA_ROOT {root} is not a folder we can read", "Set MEDIA_ROOT to a readable folder.")
    elif subject.plan.owns_media_root:
        yield Finding("media-root", "pass", f"{root} is made at the start")
    else:
        yield Finding("media-root", "fail", f"MEDIA_ROOT {root} is missing", f"mkdir -p {shlex.quote(str(root))}\nOr set MEDIA_ROOT to a folder that exists.")


def check_folders(subject: Subject) -> Iterator[Finding]:
    for code, folder in (("logs-writable", subject.paths.logs), ("run-writable", subject.paths.run)):
        place = _existing(folder)
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            yield Finding(code, "fail", f"Cannot write in {folder}", "Make it writable, or move the run with QWEN_FP8_HOME=/other/folder.")
        elif (free := shutil.disk_usage(place).free) < LOW_DISK_BYTES:
            yield Finding(code, "warn", f"only {free // (1 << 20)} MiB free at {folder}", "Free some space, or lower LOG_MAX_MB.")
        else:
            yield Finding(code, "pass", str(folder))


def _existing(folder: Path) -> Path:
    """The folder, or where it would be made; a link that leads nowhere is there, and in the way."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def check_settings(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    if settings.dtype == "float16":
        yield Finding("dtype-float16", "warn", "DTYPE=float16 turns off DeepGEMM kernels and can overflow", "Set DTYPE=bfloat16, the checkpoint's own.")
    if settings.weight_cache:
        yield Finding("weight-cache", "fail", "WEIGHT_CACHE=on is not supported by this version", "Set WEIGHT_CACHE=off.")
    if settings.max_body_mb < 8:
        yield Finding("body-limit", "warn", f"MAX_BODY_MB={settings.max_body_mb} is less than a photo takes as base64", "Set MAX_BODY_MB=256.")


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    check_allocation,
    check_gpus,
    check_engine,
    check_model,
    check_weights,
    check_ports,
    check_access,
    check_media_root,
    check_folders,
    check_settings,
    check_memory,
)
