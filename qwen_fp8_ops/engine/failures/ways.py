"""Ways out: which key of config.env to set to what, from the settings that failed and the numbers that the signs tell."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable

from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.engine.failures.rule import Change, Signs, Ways
from qwen_fp8_ops.engine.failures.scene import Scene


def to(key: str, value: str | float, why: str) -> Ways:
    """Always the same change, unless it is set already."""

    def ways(scene: Scene, _: Signs) -> Iterable[Change]:
        if getattr(scene.settings, key.lower()) != OPTIONS[key].kind.parse(str(value)):
            yield Change(key, value, why)

    return ways


def by(key: str, step: float, why: str, *, lowest: float = 0.5, highest: float = 0.95) -> Ways:
    """A share moved by so much, as far as it goes."""

    def ways(scene: Scene, _: Signs) -> Iterable[Change]:
        value = round(getattr(scene.settings, key.lower()) + step, 2)
        if lowest <= value <= highest:
            yield Change(key, value, why)

    return ways


def half(key: str, lowest: int, why: str) -> Ways:
    def ways(scene: Scene, _: Signs) -> Iterable[Change]:
        value = getattr(scene.settings, key.lower()) // 2
        if value >= lowest:
            yield Change(key, value, why)

    return ways


def told(key: str, part: str, why: str) -> Ways:
    """The number that the engine itself names."""

    def ways(_: Scene, signs: Signs) -> Iterable[Change]:
        if part in signs.parts:
            yield Change(key, int(float(signs.parts[part].replace(",", ""))), why, known=True)

    return ways


def each(*several: Ways) -> Ways:
    """All of them, in this order."""
    return lambda scene, signs: [change for ways in several for change in ways(scene, signs)]


def what_is_free(scene: Scene, signs: Signs) -> Iterable[Change]:
    share = math.floor(100 * float(signs.parts["free"]) / float(signs.parts["total"])) / 100
    if 0.1 <= share < scene.settings.gpu_memory_util:
        yield Change("GPU_MEMORY_UTIL", share, "what that GPU has free")


def kv_cache_that_fits(scene: Scene, signs: Signs) -> Iterable[Change]:
    """Two GiB stay for what the processes themselves need."""
    value = max(1, int(float(signs.parts["free"])) - 2)
    if value < scene.settings.cpu_kv_cache_gib:
        yield Change("CPU_KV_CACHE_GIB", value, f"{signs.parts['free']} GiB of this host's memory are free")


def more_job_memory(scene: Scene, _: Signs) -> Iterable[Change]:
    if scene.settings.on_cpu:
        if scene.settings.cpu_kv_cache_gib > 1:
            yield Change("CPU_KV_CACHE_GIB", scene.settings.cpu_kv_cache_gib // 2, "less of the host's memory for the KV cache")
        return
    size = re.fullmatch(r"(\d+)([KMGT]?)", scene.settings.slurm_mem)
    if scene.seconds_left is not None and size and int(size[1]):
        yield Change("SLURM_MEM", f"{2 * int(size[1])}{size[2]}", "more host memory for the job")
    if scene.settings.load_strategy in ("eager", "prefetch", "multithread"):
        yield Change("LOAD_STRATEGY", "lazy", "weights are not read into host memory ahead of time")


def arguments_left(scene: Scene, signs: Signs) -> Iterable[Change]:
    """VLLM_EXTRA_ARGS without what vLLM does not take."""
    refused = signs.parts.get("arguments", "").split()
    extra = scene.settings.vllm_extra_args
    left = [word for word in extra if word not in refused]
    if len(left) < len(extra):
        yield Change("VLLM_EXTRA_ARGS", shlex.join(left), f"without {' '.join(word for word in extra if word in refused)}", known=True)
