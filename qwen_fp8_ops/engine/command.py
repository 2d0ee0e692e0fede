"""Settings in, the engine's command line and environment out. Pure: nothing is read, nothing is started.

Flags and variables as in vLLM 0.32; a test parses the result of every profile with the installed vLLM's own parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.flags import refuse_clashes
from qwen_fp8_ops.engine.load_flags import load_flags
from qwen_fp8_ops.engine.weight_cache import cache_words, mapped_weights_flags

GPU_LAUNCHER = "qwen_fp8_ops.engine.gpu_launcher"
CPU_LAUNCHER = "qwen_fp8_ops.engine.cpu_launcher"
GATE = "qwen_fp8_ops.gate.Gate"
MEDIA_CONNECTOR = "qwen-fp8-ops"
"""``gate.CONNECTOR``: the gate registers it with vLLM. Fetches are judged there, where they happen, by ALLOWED_MEDIA_DOMAINS."""

FP8_BLOCK = 128
EXPERT_WIDTH = 1536
"""moe_intermediate_size of Qwen3-VL-235B-A22B, from its config.json."""

NOT_INHERITED = (
    "VLLM_API_KEY",
    "VLLM_SERVER_DEV_MODE",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_PLUGINS",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
)
"""Variables of the caller's shell that would open the engine's door beside the gate or load code into it, and tokens that no program
needs which downloads nothing: what a program does not have, no prompt and no crash dump can get out of it."""


@dataclass(frozen=True)
class EngineCommand:
    """``env`` is added to the inherited environment, after ``NOT_INHERITED`` is taken out of that."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def engine_command(
    settings: Settings, *, python: str, model: Path, gate_file: Path, port: int, load_strategy: str | None = None, sockets: Path | None = None
) -> EngineCommand:
    """
    Args:
        load_strategy: what LOAD_STRATEGY=auto comes to on this machine; None leaves it to the engine.
        sockets: of the weight cache whose weights the engine maps; None has it read them itself.

    Raises:
        ConfigError: VLLM_EXTRA_ARGS sets what a key of ours sets.
    """
    refuse_clashes(settings.vllm_extra_args)
    launcher = CPU_LAUNCHER if settings.on_cpu else GPU_LAUNCHER
    # -P: the current folder must not shadow installed packages.
    argv = [
        python,
        "-P",
        "-m",
        launcher,
        "serve",
        str(model),
        *_flags(settings, port),
        *(mapped_weights_flags(sockets) if sockets else load_flags(load_strategy or settings.load_strategy)),
        *settings.vllm_extra_args,
    ]
    return EngineCommand(tuple(argv), _environment(settings, gate_file))


def weight_cache_command(settings: Settings, *, python: str, model: Path, sockets: Path, load_strategy: str | None = None) -> EngineCommand:
    """
    Args:
        sockets: the folder in which each rank's socket is made.
        load_strategy: as for the engine.
    """
    words = cache_words(settings, model=model, sockets=sockets, load_strategy=load_strategy or settings.load_strategy, layout=_expert_flags(settings))
    # Its own log tells how far it is, which no LOG_LEVEL changes: another environment would be another cache.
    env = {"VLLM_LOGGING_LEVEL": "INFO", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return EngineCommand((python, "-P", "-m", GPU_LAUNCHER, *words), env)


def uses_expert_parallel(settings: Settings) -> bool:
    """EXPERT_PARALLEL=auto is on where a rank's slice of each expert is no whole number of FP8 blocks (1536/8 = 192)."""
    if settings.expert_parallel == "auto":
        return settings.tensor_parallel_size > 1 and EXPERT_WIDTH % (FP8_BLOCK * settings.tensor_parallel_size) != 0
    return settings.expert_parallel == "on"


def _flags(settings: Settings, port: int) -> list[str]:
    flags = [
        f"--host={settings.host}",
        f"--port={port}",
        f"--served-model-name={settings.served_model_name}",
        f"--dtype={settings.dtype}",
        f"--tensor-parallel-size={settings.tensor_parallel_size}",
        f"--max-model-len={settings.max_model_len}",
        f"--max-num-seqs={settings.max_num_seqs}",
        f"--max-num-batched-tokens={settings.max_num_batched_tokens}",
        f"--kv-cache-dtype={settings.kv_cache_dtype}",
        f"--mm-encoder-tp-mode={settings.mm_encoder_tp_mode}",
        "--async-scheduling",
        f"--limit-mm-per-prompt={json.dumps({'image': settings.max_images, 'video': settings.max_videos})}",
        f"--override-generation-config={json.dumps(_sampling(settings))}",
        f"--shutdown-timeout={settings.drain_timeout}",
        f"--middleware={GATE}",
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",  # the gate's audit log has one line per request, with more in it
    ]
    if settings.log_format == "json":
        # Its lines then bear the gate's request id. At LOG_LEVEL=debug it would write the prompts as well: cut to nothing.
        flags += ["--enable-log-requests", "--max-log-len=0"]
    if not settings.on_cpu:
        flags.append(f"--gpu-memory-utilization={settings.gpu_memory_util}")
    flags += _expert_flags(settings)
    if settings.enforce_eager:
        flags.append("--enforce-eager")
    if settings.reasoning_parser:
        flags.append(f"--reasoning-parser={settings.reasoning_parser}")
    if settings.tool_call_parser:
        flags += ["--enable-auto-tool-choice", f"--tool-call-parser={settings.tool_call_parser}"]
    return flags


def _expert_flags(settings: Settings) -> list[str]:
    return ["--enable-expert-parallel", "--enable-ep-weight-filter"] if uses_expert_parallel(settings) else []


def _sampling(settings: Settings) -> dict[str, float | int]:
    """MAX_TOKENS is not here: vLLM reads max_new_tokens as a cap on every request. The gate fills it in where it is missing."""
    return {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}


def _environment(settings: Settings, gate_file: Path) -> dict[str, str]:
    env = {
        "QWEN_FP8_GATE": str(gate_file),
        "VLLM_LOGGING_LEVEL": settings.log_level.upper(),
        "VLLM_MEDIA_CONNECTOR": MEDIA_CONNECTOR,
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(settings.start_timeout),
        "HF_HUB_OFFLINE": "1",  # the weights are on disk; a compute node may have no way out, and must not need one
    }
    if settings.on_cpu:
        env |= {"VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    else:
        env |= {"OMP_NUM_THREADS": "1"}  # vLLM recipes, Qwen3-VL: image preprocessing threads otherwise fight each other
    return env
