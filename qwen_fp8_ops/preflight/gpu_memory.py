"""Is the GPUs' memory free, and who holds what is not.

vLLM refuses a GPU whose free memory is less than GPU_MEMORY_UTIL of its total; its message names no process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.outside.owner import owner_of
from qwen_fp8_ops.plan.overhead import beside_share
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Standing, Subject

GROUP = "GPUs"
GIB = 1 << 30
SHOWN = 4
COMMAND_LETTERS = 60


@dataclass(frozen=True)
class Holder:
    """A process of somebody else on a GPU."""

    gpu: int
    pid: int
    memory_bytes: int | None

    def __str__(self) -> str:
        held = "memory" if self.memory_bytes is None else f"{self.memory_bytes / GIB:.2f} GiB"
        return f"pid {self.pid} ({_who(self.pid)}) holds {held} on GPU {self.gpu}"


def foreign(subject: Subject, gpus: tuple[Gpu, ...]) -> list[Holder]:
    return [Holder(gpu.index, one.pid, one.memory_bytes) for gpu in gpus for one in gpu.processes if one.pid not in subject.own_pids]


@check(
    GROUP, {"gpu-free-memory": "every GPU has the memory free that the engine will ask for: GPU_MEMORY_UTIL of it, and what a weight cache takes beside that"}
)
def check_free_memory(subject: Subject) -> Iterator[Finding]:
    util, beside, short, tightest = subject.settings.gpu_memory_util, beside_share(subject.settings), [], None
    for gpu in subject.gpus:
        if gpu.memory_used_bytes is None or gpu.memory_free_bytes is None:
            continue
        needed = math.ceil((gpu.memory_used_bytes + gpu.memory_free_bytes) * util) + beside
        free = gpu.memory_free_bytes + _given_back(subject, gpu)
        if free < needed:
            short.append((gpu, free, needed))
        if tightest is None or free - needed < tightest[1] - tightest[2]:
            tightest = (gpu, free, needed)
    if short:
        amounts = ", ".join(f"GPU {gpu.index} has {free / GIB:.2f} of {needed / GIB:.2f} GiB" for gpu, free, needed in short[:SHOWN])
        more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        yield Finding(
            "gpu-free-memory",
            "fail",
            f"Too little memory is free: {amounts}{more}; {_blame(subject, tuple(gpu for gpu, _, _ in short))}",
            _ways(subject, short),
        )
    elif tightest:
        gpu, free, needed = tightest
        yield Finding("gpu-free-memory", "pass", f"at least {free / GIB:.2f} GiB free (GPU {gpu.index}), {needed / GIB:.2f} needed")


@check(GROUP, {"gpu-processes": "nobody else's process is on the GPUs"})
def check_gpu_processes(subject: Subject) -> Iterator[Finding]:
    others = foreign(subject, subject.gpus)
    if others:
        more = f"; and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        yield Finding("gpu-processes", "warn", f"Shared with others: {'; '.join(map(str, others[:SHOWN]))}{more}", _look(others))
    elif subject.gpus:
        yield Finding("gpu-processes", "pass", "no process of anybody else")


def _given_back(subject: Subject, gpu: Gpu) -> int:
    """What our own processes hold, which ends before the engine starts: the running service's by a restart, leftovers by the sweep.

    A start has swept already: what is left then has outlived SIGKILL.
    """
    if subject.standing is Standing.STARTING:
        return 0
    return sum(one.memory_bytes or 0 for one in gpu.processes if one.pid in subject.own_pids)


def _blame(subject: Subject, gpus: tuple[Gpu, ...]) -> str:
    named = [*foreign(subject, gpus), *(_leftovers(gpus, subject) if subject.standing is Standing.STARTING else [])]
    if not named:
        return "no process is shown that holds it: perhaps one of another container, or one that is just ending"
    more = f"; and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return "; ".join(map(str, named[:SHOWN])) + more


def _leftovers(gpus: tuple[Gpu, ...], subject: Subject) -> list[Holder]:
    return [Holder(gpu.index, one.pid, one.memory_bytes) for gpu in gpus for one in gpu.processes if one.pid in subject.own_pids]


def _ways(subject: Subject, short: list[tuple[Gpu, int, int]]) -> str:
    """The largest share that would do, to two places, is what vLLM takes without a word."""
    gpus = tuple(gpu for gpu, _, _ in short)
    beside = beside_share(subject.settings)
    share = min(math.floor(100 * (free - beside) / ((gpu.memory_used_bytes or 0) + (gpu.memory_free_bytes or 0))) / 100 for gpu, free, _ in short)
    ways = [
        _look(foreign(subject, gpus)),
        f"Or take less: --set GPU_MEMORY_UTIL={share:.2f}; `qwen-fp8 plan` tells whether that is enough." if share >= 0.1 else "",
    ]
    return "\n".join(way for way in ways if way)


def _look(others: list[Holder]) -> str:
    pids = list(dict.fromkeys(str(one.pid) for one in others))
    if not pids:
        return "nvidia-smi"
    return f"ps -o pid,user,lstart,cmd -p {','.join(pids)}\nEnd what is yours (kill PID); else choose other GPUs with CUDA_VISIBLE_DEVICES, or another node."


def _who(pid: int) -> str:
    """User and command; ``?`` for a pid that this container does not have."""
    owner = owner_of(pid)
    return f"{owner.user}: {owner.command[:COMMAND_LETTERS] or '?'}" if owner else "?"
