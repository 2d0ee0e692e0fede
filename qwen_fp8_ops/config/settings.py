"""Every option of the service, declared once.

The fields of ``Settings`` are the table: key, type, range, default and one line of help. ``config.env``, the README's reference,
``qwen-fp8 config`` and the checks of ``config.load`` all come from here. A field's key is its name in capitals.

Sizes carry their unit in the key (GIB, MB); times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.kinds import Arguments, Choice, Decimal, Kind, Matching, Names, Place, Port, Switch, Text, Whole

DEMO_MODEL_ID = "demo"
"""MODEL_ID of the checkpoint that this project makes itself, on first use."""

SLURM_TIME = r"[0-9]+|[0-9]+:[0-5]?[0-9](:[0-5]?[0-9])?|[0-9]+-[0-9]{1,2}(:[0-5]?[0-9]){0,2}"
REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
HOST_OR_NETWORK = r"\*|[A-Za-z0-9][A-Za-z0-9.-]*(/[0-9]{1,2})?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?"
HOST_NAME = r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?|::1?"


@dataclass(frozen=True)
class Option:
    """One row of the table."""

    key: str
    kind: Kind
    default: str
    help: str
    group: str


def option(group: str, default: str, kind: Kind, help: str) -> Any:
    return field(default=kind.parse(default), metadata={"kind": kind, "default": default, "help": help, "group": group})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The resolved configuration: every value parsed and in range."""

    # fmt: off
    model_id: str = option("Model", "Qwen/Qwen3-VL-235B-A22B-Thinking-FP8", Matching(rf"{DEMO_MODEL_ID}|{REPOSITORY}", "a Hub repository as owner/name, or demo"), "repository that download fetches; `demo` is a tiny checkpoint made on this machine")
    model_revision: str = option("Model", "main", Matching(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "a branch, tag or commit"), "branch, tag or commit of MODEL_ID")
    model_path: str = option("Model", "models/qwen3-vl-235b-thinking-fp8", Place("a folder", needed=True), "folder of the weights; a relative path starts at the project's folder")
    served_model_name: str = option("Model", "qwen3-vl-fp8", Matching(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", "letters, digits and . _ / -"), "the `model` that clients ask for")
    dtype: str = option("Model", "bfloat16", Choice(("bfloat16", "float16", "auto")), "activations; float16 turns off fast FP8 kernels and can overflow")

    host: str = option("Addresses", "127.0.0.1", Matching(HOST_NAME, "a host name or IP address"), "address the API listens on; other than loopback needs API_KEYS_FILE")
    port: int = option("Addresses", "8010", Port(), "port of the OpenAI-compatible API; auto takes a free one, run/endpoint.json tells which")
    media_host: str = option("Addresses", "127.0.0.1", Matching(HOST_NAME, "a host name or IP address"), "address the media server listens on")
    media_port: int = option("Addresses", "8080", Port(), "port of the media server; auto takes a free one")
    media_root: str = option("Addresses", "media", Place("a folder", needed=True), "folder whose files the media server offers; relative to the project's folder")

    tensor_parallel_size: int = option("Engine", "8", Whole(1, 64), "GPUs that one engine's layers are split over")
    expert_parallel: str = option("Engine", "auto", Choice(("auto", "on", "off")), "whole experts per GPU; auto: on where the experts' width does not split into 128-blocks")
    max_model_len: int = option("Engine", "32768", Whole(256, 1_048_576, "tokens"), "longest context, prompt and answer together")
    gpu_memory_util: float = option("Engine", "0.90", Decimal(0.1, 0.98), "share of each GPU's memory that the engine may use")
    max_num_seqs: int = option("Engine", "4", Whole(1, 1024), "requests that run at the same time; more wait")
    max_num_batched_tokens: int = option("Engine", "8192", Whole(256, 16383, "tokens"), "tokens of one engine step; 16384 and more break an FP8 MoE kernel on H100")
    kv_cache_dtype: str = option("Engine", "auto", Choice(("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2")), "type of the KV cache; fp8 holds twice the tokens")
    mm_encoder_tp_mode: str = option("Engine", "data", Choice(("data", "weights")), "vision tower: whole on each GPU (data, faster) or split (weights, 0.9 GiB less)")
    load_strategy: str = option("Engine", "auto", Choice(("auto", "engine", "lazy", "eager", "prefetch", "multithread", "instanttensor")), "how weights are read; auto chooses by file system, free memory and layout (see `qwen-fp8 plan`), engine leaves it to vLLM")
    enforce_eager: bool = option("Engine", "off", Switch(), "skip compilation and CUDA graphs: starts sooner, answers slower")
    weight_cache: bool = option("Engine", "off", Switch(), "keep weights in GPU memory while the engine restarts (CUDA only)")
    cpu_kv_cache_gib: int = option("Engine", "1", Whole(1, 1024, "GiB"), "KV cache of an engine on the CPU (GPU_COUNT=0)")
    vllm_extra_args: tuple[str, ...] = option("Engine", "", Arguments(), "appended to the engine's command line; flags that a key here sets are refused")

    temperature: float = option("Sampling", "0.7", Decimal(0.0, 2.0), "used when a request gives none")
    top_p: float = option("Sampling", "0.95", Decimal(0.01, 1.0), "used when a request gives none")
    top_k: int = option("Sampling", "20", Whole(0, 1000), "used when a request gives none; 0 is off")
    max_tokens: int = option("Sampling", "8192", Whole(1, 1_048_576, "tokens"), "longest answer of a request that gives no max_tokens of its own")
    reasoning_parser: str = option("Sampling", "qwen3", Matching(r"[a-z0-9_]*", "a vLLM reasoning parser, or nothing"), "splits thinking from the answer; empty is off")
    tool_call_parser: str = option("Sampling", "hermes", Matching(r"[a-z0-9_]*", "a vLLM tool call parser, or nothing"), "reads tool calls out of answers; empty is off")

    max_images: int = option("Media", "16", Whole(0, 1024), "images in one request")
    max_videos: int = option("Media", "2", Whole(0, 64), "videos in one request")
    max_media_mb: int = option("Media", "512", Whole(1, 65_536, "MB"), "all that is fetched for one request, its images and videos together; data URLs count as body")
    allowed_media_domains: tuple[str, ...] = option("Media", "", Names("host names, addresses and networks separated by commas, or * for any public host", HOST_OR_NETWORK), "hosts that media may be fetched from, beside our media server; * is any public one; those at private addresses need their network too (10.20.0.0/16)")

    api_keys_file: str = option("Access", "", Place("a file, or nothing"), "file of `name:key` lines (mode 0600); empty: no key is asked for")
    rate_limit: int = option("Access", "0", Whole(0, 1_000_000, "requests a minute"), "for each key, or each address without keys; 0 is off")
    max_body_mb: int = option("Access", "256", Whole(1, 4096, "MB"), "largest request body")

    gpu_count: int = option("Hardware", "8", Whole(0, 64), "GPUs the service needs; 0 runs the engine on the CPU")
    gpu_name: str = option("Hardware", "H100", Text("part of a GPU's name"), "what the GPUs' name must contain")
    gpu_memory_gib: int = option("Hardware", "80", Whole(1, 1024, "GiB"), "memory of one GPU, as the vendor names it")

    require_slurm: str = option("SLURM", "auto", Choice(("auto", "on", "off")), "refuse to start outside an allocation; auto: where GPUs are needed and SLURM is there")
    slurm_partition: str = option("SLURM", "", Matching(r"[A-Za-z0-9_.,-]*", "partition names"), "partition to ask for")
    slurm_time: str = option("SLURM", "24:00:00", Matching(SLURM_TIME, "a SLURM time such as 24:00:00 or 2-00:00"), "wall time to ask for")
    slurm_mem: str = option("SLURM", "320G", Matching(r"[0-9]+[KMGT]?", "a size such as 320G"), "host memory to ask for")
    slurm_cpus: int = option("SLURM", "32", Whole(1, 1024), "CPUs to ask for")
    slurm_job_name: str = option("SLURM", "qwen-vl-fp8", Matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "letters, digits and . _ -"), "name of the job")
    slurm_extra_args: tuple[str, ...] = option("SLURM", "", Arguments(), "further options of sbatch and salloc, such as --account=physics --qos=high")
    slurm_at_end: str = option("SLURM", "stop", Choice(("stop", "requeue", "chain")), "when a submitted job's wall time runs out: stop; requeue the job; or chain a new job to it")

    start_timeout: int = option("Supervision", "3600", Whole(10, 86_400, "seconds"), "longest wait until the engine is ready")
    drain_timeout: int = option("Supervision", "120", Whole(0, 3600, "seconds"), "longest wait for running requests when stopping")
    restart_limit: int = option("Supervision", "5", Whole(0, 1000), "restarts of one program within an hour before giving up")
    probe_interval: int = option("Supervision", "10", Whole(1, 3600, "seconds"), "time between two probes, each a real request; every tenth has a picture")
    hang_timeout: int = option("Supervision", "300", Whole(5, 86_400, "seconds"), "a program that has work and gives no sign of life for so long is restarted")

    log_format: str = option("Logs", "text", Choice(("text", "json")), "form of the supervisor's own log lines")
    log_level: str = option("Logs", "info", Choice(("debug", "info", "warning", "error")), "of the supervisor and the engine")
    log_max_mb: int = option("Logs", "256", Whole(1, 100_000, "MB"), "size at which a log file is rotated")
    # fmt: on

    @property
    def on_cpu(self) -> bool:
        return self.gpu_count == 0

    @property
    def is_demo_model(self) -> bool:
        return self.model_id == DEMO_MODEL_ID

    def folder(self, text: str, home: Path) -> Path:
        """The path that a value such as MODEL_PATH means: ~ expanded, relative ones under ``home``."""
        return home / os.path.expanduser(text)


def options() -> Iterator[Option]:
    """The table, in the order of the documentation."""
    for row in fields(Settings):
        data = row.metadata
        yield Option(row.name.upper(), data["kind"], data["default"], data["help"], data["group"])


OPTIONS: dict[str, Option] = {row.key: row for row in options()}
