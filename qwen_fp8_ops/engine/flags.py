"""Which key owns which engine flag, so that VLLM_EXTRA_ARGS cannot contradict config.env in silence."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_fp8_ops.errors import ConfigError

OWNERS: dict[str, str] = {
    "--host": "HOST",
    "--port": "PORT",
    "--uds": "HOST and PORT",
    "--model": "MODEL_PATH",
    "--config": "config.env itself",  # a YAML file of flags, any of these among them
    "--served-model-name": "SERVED_MODEL_NAME",
    "--dtype": "DTYPE",
    "--tensor-parallel-size": "TENSOR_PARALLEL_SIZE",
    "-tp": "TENSOR_PARALLEL_SIZE",
    "--enable-expert-parallel": "EXPERT_PARALLEL",
    "--no-enable-expert-parallel": "EXPERT_PARALLEL",
    "-ep": "EXPERT_PARALLEL",
    "--enable-ep-weight-filter": "EXPERT_PARALLEL",
    "--no-enable-ep-weight-filter": "EXPERT_PARALLEL",
    "--max-model-len": "MAX_MODEL_LEN",
    "--max-num-seqs": "MAX_NUM_SEQS",
    "--max-num-batched-tokens": "MAX_NUM_BATCHED_TOKENS",
    "--gpu-memory-utilization": "GPU_MEMORY_UTIL",
    "--device-memory-utilization": "GPU_MEMORY_UTIL",
    "--kv-cache-dtype": "KV_CACHE_DTYPE",
    "--mm-encoder-tp-mode": "MM_ENCODER_TP_MODE",
    "--limit-mm-per-prompt": "MAX_IMAGES and MAX_VIDEOS",
    "--override-generation-config": "TEMPERATURE, TOP_P and TOP_K",
    "--shutdown-timeout": "DRAIN_TIMEOUT",
    "--safetensors-load-strategy": "LOAD_STRATEGY",
    "--enforce-eager": "ENFORCE_EAGER",
    "--no-enforce-eager": "ENFORCE_EAGER",
    "--reasoning-parser": "REASONING_PARSER",
    "--tool-call-parser": "TOOL_CALL_PARSER",
    "--enable-auto-tool-choice": "TOOL_CALL_PARSER",
    "--no-enable-auto-tool-choice": "TOOL_CALL_PARSER",
    "--allowed-media-domains": "ALLOWED_MEDIA_DOMAINS",
    "--api-key": "API_KEYS_FILE",
    "--middleware": "the gate",
    "--disable-fastapi-docs": "the gate",
    "--no-disable-fastapi-docs": "the gate",
    "--grpc": "the gate",  # a second way to the engine, with no middleware in it
}

FREE = ("--async-scheduling", "--disable-uvicorn-access-log", "--enable-log-requests", "--max-log-len")
"""Flags that we set and no key names: VLLM_EXTRA_ARGS may turn them off, with --no-..., or set them anew."""

SECRETS = ("--api-key", "--hf-token")
"""Flags whose value every user of the node could read in `ps`."""


def refuse_clashes(words: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: a word sets what a key sets; spelled in full, with =value, with a .part, with underscores or cut short. Or
            the first word is none: it would become one more value of our own last flag.
    """
    if words and not words[0].startswith("-"):
        raise ConfigError(f"VLLM_EXTRA_ARGS: it begins with {words[0]!r}, which is no flag", fix="Begin with a flag: VLLM_EXTRA_ARGS=--flag value")
    for word in words:
        flag = flag_of(word)
        if any(_means(flag, secret) for secret in SECRETS):
            raise ConfigError(f"VLLM_EXTRA_ARGS: {flag} would show its value to every user of this machine", fix="Use API_KEYS_FILE for keys, and the environment (HF_TOKEN) for a token.")
        owner = next((key for name, key in OWNERS.items() if _means(flag, name)), None)
        if owner:
            raise ConfigError(f"VLLM_EXTRA_ARGS: {word.partition('=')[0]} is set by {owner}", fix=f"Take it out of VLLM_EXTRA_ARGS; {owner} is the place for it.")


def flag_of(word: str) -> str:
    """The flag that a word names, as the table spells it; empty when it names none."""
    if not word.startswith("-") or word in ("-", "--"):
        return ""
    return word.partition("=")[0].partition(".")[0].replace("_", "-")


def _means(flag: str, name: str) -> bool:
    """Would argparse take ``flag`` for ``name``? It takes any beginning that fits one flag only, and refuses one that fits several."""
    return bool(flag) and name.startswith(flag)
