"""Why vLLM would refuse to start, in its own words, so that a person who meets them finds the plan and the other way round.

Texts of vLLM 0.32 (``config/model.py``, ``v1/worker/utils.py``, ``v1/worker/cpu_worker.py``, ``v1/core/kv_cache_utils.py``,
``layers/quantization/utils/fp8_utils.py``); tests compare them with the installed vLLM's own.
"""

from __future__ import annotations

import math

GIB = 1 << 30
SEE = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."


def gib(count: float) -> str:
    """As vLLM's ``format_gib``."""
    return f"{round(count / GIB, 2)}"


def blocks_for(tokens: int, block_tokens: int) -> int:
    return math.ceil(tokens / block_tokens)


def beyond_positions(max_model_len: int, max_position: int) -> str:
    return (
        f"User-specified max_model_len ({max_model_len}) is greater than the derived max_model_len "
        f"(max_position_embeddings={float(max_position)} or model_max_length=None in model's config.json)."
    )


def heads_do_not_split(heads: int, ranks: int) -> str:
    return f"ValueError: Total number of attention heads ({heads}) must be divisible by tensor parallel size ({ranks})."


def not_free(index: int, free: int, total: int, util: float) -> str:
    return (
        f"ValueError: Free memory on device cuda:{index} ({gib(free)}/{gib(total)} GiB) on startup is less than desired GPU memory utilization "
        f"({util}, {gib(math.ceil(total * util))} GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )


def not_free_beside_weights(index: int, free: int, total: int, util: float, weights: int, cache: int) -> str:
    """By then the cache has taken the weights, and what its own process needs."""
    return (
        f"ValueError: Free memory on device cuda:{index} ({gib(free - weights - cache)}/{gib(total)} GiB) on startup is less than the engine's budget after "
        f"excluding external process's weights ({util}, {gib(math.ceil(total * util) - weights)} GiB). Decrease GPU memory utilization or reduce GPU memory "
        "used by other processes."
    )


def not_free_on_cpu(available: int, total: int, wanted: int) -> str:
    return (
        f"ValueError: Available memory on node 0 ({gib(available)}/{gib(total)} GiB) on kv cache allocation is less than requested memory for kv "
        f"({gib(wanted)} GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."
    )


def experts_do_not_split(width: int, block: tuple[int, int]) -> str:
    if width % block[0]:
        return f"ValueError: The output_size of gate's and up's weight = {width} is not divisible by weight quantization block_n = {block[0]}."
    return f"ValueError: The input_size of down's weight = {width} is not divisible by weight quantization block_k = {block[1]}."


def weights_do_not_fit(total: int) -> str:
    return f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate ... GPU 0 has a total capacity of {total / GIB:.2f} GiB of which ... is free."


def no_room() -> str:
    return (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine "
        f"(this flag also controls CPU memory reservation on the CPU backend, despite its name). {SEE}"
    )


def context_does_not_fit(max_model_len: int, needed: int, available: int, longest: int) -> str:
    estimate = f"Based on the available memory, the estimated maximum model length is {longest}. " if longest > 0 else ""
    return (
        f"ValueError: To serve at least one request with the model's max seq len ({max_model_len}), ({gib(needed)} GiB KV cache is needed, which is larger "
        f"than the available KV cache memory ({gib(available)} GiB). {estimate}Try increasing `gpu_memory_utilization` (which also controls CPU memory "
        f"on the CPU backend) or decreasing `max_model_len` when initializing the engine. {SEE}"
    )
