"""``vllm preload``: weights that stay in GPU memory while engines come and go (WEIGHT_CACHE=on).

One process for each rank reads its part of the weights, as an engine would, and keeps it. An engine started with ``--load-format
ipc_cache`` maps those tensors through CUDA IPC: it reads nothing and takes no second place for them. Each rank listens on a socket in
a folder of ours. As in vLLM 0.32 (``entrypoints/cli/preload.py``, ``model_loader/weight_cache/``). Pure.

vLLM compares less than it should before it hands weights out: neither the experts' layout nor the vision tower's, and of the files
only their headers (issue 59647). So what decides over the weights is the cache's own command line, and nothing else is in it: a plan
whose command line for the cache is another one gets another cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.flags import flag_of
from qwen_fp8_ops.engine.load_flags import load_flags

SINCE = (0, 31)
"""The first release of vLLM that has ``preload``."""

KEYS = frozenset(
    {"MODEL_PATH", "DTYPE", "TENSOR_PARALLEL_SIZE", "EXPERT_PARALLEL", "KV_CACHE_DTYPE", "MM_ENCODER_TP_MODE", "MAX_IMAGES", "MAX_VIDEOS"}
    | {"LOAD_STRATEGY", "VLLM_EXTRA_ARGS", "GPU_COUNT"}
)
"""Settings that its command line can depend on."""

NOT_WITH = frozenset({"--load-format", "--model-loader-extra-config", "--enable-sleep-mode"})
"""Flags in VLLM_EXTRA_ARGS that would undo it: another loader, or one that moves the weights away."""

SERVER_ONLY = frozenset(
    f"--{name}"
    for name in """
    allow-credentials allowed-headers allowed-methods allowed-origins anthropic-disabled-thinking-effort api-key api-server-count chat-template
    chat-template-content-format cohere-format cohere-is-reasoning-model config data-parallel-supervisor-port default-chat-template-kwargs
    disable-access-log-for-endpoints disable-fastapi-docs disable-uvicorn-access-log dp-supervisor-probe-failure-threshold
    dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s enable-auto-tool-choice enable-flash-late-interaction enable-force-include-usage
    enable-log-deltas enable-log-outputs enable-log-requests enable-offline-docs enable-per-request-metrics enable-prompt-tokens-details
    enable-request-id-headers enable-scale-out enable-server-load-tracking enable-ssl-refresh enable-tokenizer-info-endpoint
    exclude-tools-when-tool-choice-none fingerprint-mode fingerprint-value grpc grpc-port h11-max-header-count h11-max-incomplete-event-size
    headless host log-error-stack lora-modules max-log-len middleware port response-role return-tokens-as-token-ids root-path
    sse-keep-alive-interval ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile tokens-only tool-call-parser tool-parser-plugin
    tool-server tool-strict-level trust-request-chat-template trust-request-mm-kwargs uds uvicorn-log-level
    """.split()  # noqa: SIM905 - 70 strings in a list are no easier to read
)
"""Flags of ``vllm serve`` that ``vllm preload`` does not know; a test asks both."""


def cache_words(settings: Settings, *, model: Path, sockets: Path, load_strategy: str, layout: Sequence[str]) -> tuple[str, ...]:
    """What follows ``vllm`` on the cache's command line.

    Args:
        layout: the engine's own flags of how experts are laid out.
    """
    return (
        "preload",
        f"--model={model}",
        f"--weight-cache-socket-dir={sockets}",
        f"--dtype={settings.dtype}",
        f"--tensor-parallel-size={settings.tensor_parallel_size}",
        f"--kv-cache-dtype={settings.kv_cache_dtype}",
        f"--mm-encoder-tp-mode={settings.mm_encoder_tp_mode}",
        # Whether there is a vision tower at all hangs on it, and nothing else: the number may change.
        f"--limit-mm-per-prompt={json.dumps({'image': min(1, settings.max_images), 'video': min(1, settings.max_videos)})}",
        *layout,
        "--enforce-eager",  # it computes nothing
        "--no-enable-flashinfer-autotune",  # which the engine does for itself, and keeps on disk
        *load_flags(load_strategy),
        *without_server_flags(settings.vllm_extra_args),
    )


def mapped_weights_flags(sockets: Path) -> tuple[str, ...]:
    """Have the engine map the weights of the cache. It must not read them a second time on its own account when it cannot map them: the
    memory plan counts them once.
    """
    return "--load-format=ipc_cache", f"--model-loader-extra-config={json.dumps({'socket_dir': str(sockets), 'fallback': False})}"


def without_server_flags(words: Sequence[str]) -> tuple[str, ...]:
    """VLLM_EXTRA_ARGS without what only a server knows, each flag with its values."""
    return tuple(word for flag, words in _groups(words) if not _is_servers(flag) for word in words)


def _groups(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag, with itself and its values. A value may be a negative number."""
    flag, group = "", list[str]()
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            if group:
                yield flag, group
            flag, group = flag_of(word), []
        group.append(word)
    if group:
        yield flag, group


def _is_servers(flag: str) -> bool:
    return flag in SERVER_ONLY or flag.replace("--no-", "--", 1) in SERVER_ONLY or flag == "-asc"
