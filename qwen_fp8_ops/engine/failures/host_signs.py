"""Signs that are not in the engine's log, or not only there: the job's time, the kernel, other processes on our GPUs and port."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qwen_fp8_ops.engine.failures.rule import MOST_EVIDENCE, Seen, Signs
from qwen_fp8_ops.engine.failures.scene import OUT_OF_MEMORY, Scene

END_SECONDS = 30.0
"""So near to its end SLURM is already ending the job; its clock and ours may differ."""
ASKED_TO_END = (0, 128 + 9, 128 + 15)
"""Exit codes of a program that ended because it got a signal and handled it, or whose shell tells of the signal."""
TIME_LIMIT = re.compile(r"DUE TO TIME LIMIT|STEPD TERMINATED|CANCELLED AT .* DUE TO")

KERNEL_KILLED = re.compile(r"(?:Out of memory|Memory cgroup out of memory): Killed process (?P<pid>\d+) \((?P<name>[^)]*)\)")
OUR_NAME = "VLLM::"
"""What vLLM's processes title themselves; the kernel knows them by its first 15 letters, and perhaps by pids of another namespace."""

XID = re.compile(r"NVRM: Xid \(PCI:(?P<bus>[0-9a-fA-F:.]+)\): (?P<xid>\d+)")
BROKEN_GPU: Mapping[int, str] = {
    48: "a memory error that ECC could not correct",
    62: "its controller halted",
    64: "a bad memory row could not be replaced",
    74: "an NVLink failed",
    79: "it has fallen off the bus",
    95: "a memory error that could not be contained",
    109: "a context switch timed out",
    119: "its system processor does not answer",
    120: "its system processor failed",
    140: "a memory error that ECC could not correct",
    143: "its controller failed to start",
}
"""Xids after which a GPU wants a reset or a repair (docs.nvidia.com/deploy/xid-errors, catalogue for Ampere and newer)."""
FAILED_PROGRAM: Mapping[int, str] = {
    8: "it stopped processing",
    11: "a command that it could not read",
    13: "a fault in a program that it ran",
    31: "a program that it ran read or wrote where there is no memory",
    32: "a command that it could not read",
    69: "a fault in a program that it ran",
    94: "a memory error that was contained to this program",
}
"""Xids after which the program is to be started again. 43 and 45 are left out: they only tell that a program was ended."""
GPU_MATTERS = re.compile(r"CUDA|cuda|NCCL|CUBLAS|Watchdog|DistBackendError|RPC call|nvml", re.IGNORECASE)

NOT_FREE = re.compile(r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than")
NEIGHBOUR = re.compile(r"Process (?P<pid>\d+) has (?P<held>[\d.]+ \w+) memory in use")
"""How torch names another process on a full GPU (c10/cuda/CUDACachingAllocator.cpp)."""

HOLDER = re.compile(r"\bpid (\d+)")
LOOK = "ps -o pid,user,lstart,cmd -p {pids}\nEnd what is yours (kill PID); else choose other GPUs with CUDA_VISIBLE_DEVICES, or another node."


def time_is_up(scene: Scene) -> Signs | None:
    asked = scene.ended_from_outside or scene.returncode in ASKED_TO_END
    if not asked or scene.seconds_left is None or scene.seconds_left > END_SECONDS:
        return None
    return Signs(tuple(line.strip() for line in scene.log if TIME_LIMIT.search(line))[-MOST_EVIDENCE:])


def kernel_out_of_memory(scene: Scene) -> Signs | None:
    """A line that names one of our processes, or the control group's count where the kernel's log is closed to us."""
    if not scene.sudden:
        return None
    killed = [(line, found) for line in scene.kernel_lines if (found := KERNEL_KILLED.search(line))]
    ours = [(line, found["name"]) for line, found in killed if int(found["pid"]) in scene.pids or found["name"].startswith(OUR_NAME)]
    if ours:
        return Signs(tuple(line for line, _ in ours[:MOST_EVIDENCE]), {"name": ours[0][1]})
    if scene.oom_kills:
        return Signs((f"oom_kill {scene.oom_kills} (memory.events of our control group, since this attempt began)",), {"name": "a process of the engine"})
    return None


def xid(meanings: Mapping[int, str]) -> Seen:
    def seen(scene: Scene) -> Signs | None:
        if not scene.sudden and not any(GPU_MATTERS.search(line) for line in scene.complaints):
            return None
        told = [(line, found) for line in scene.kernel_lines if (found := XID.search(line)) and int(found["xid"]) in meanings]
        if not told:
            return None
        first = told[0][1]
        return Signs(tuple(line for line, _ in told[:MOST_EVIDENCE]), {"bus": first["bus"], "xid": first["xid"], "meaning": meanings[int(first["xid"])]})

    return seen


def memory_not_free(scene: Scene) -> Signs | None:
    found = next((found for line in scene.complaints if (found := NOT_FREE.search(line))), None)
    return Signs((found.string,), {**found.groupdict(), **_others(scene.holders())}) if found else None


def memory_taken(scene: Scene) -> Signs | None:
    """The GPU is full, and torch names another process that has a part of it."""
    for line in scene.complaints:
        others = [found for found in NEIGHBOUR.finditer(line) if int(found["pid"]) not in scene.pids]
        if others and OUT_OF_MEMORY.search(line):
            return Signs((line,), _others(scene.holders() or tuple(f"pid {found['pid']} holds {found['held']}" for found in others)))
    return None


def _others(holders: tuple[str, ...]) -> dict[str, str]:
    """Who they are, and how to look at them."""
    if not holders:
        return {"who": "no process is to be seen that holds it: perhaps one of another container, or one that has just ended", "look": "nvidia-smi"}
    return {"who": "; ".join(holders), "look": LOOK.format(pids=",".join(dict.fromkeys(HOLDER.findall(" ".join(holders)))))}
