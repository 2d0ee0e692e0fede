"""Signs that are not in the engine's log, or not only there: the job's time, the kernel, other processes on our GPUs and port."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from qwen_fp8_ops.engine.failures.rule import MOST_EVIDENCE, Change, Seen, Signs
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
    return _with_holders(scene, found.string, found.groupdict()) if found else None


def memory_taken(scene: Scene) -> Signs | None:
    """The GPU is full, and torch names another process that has a part of it."""
    for line in scene.complaints:
        neighbour = NEIGHBOUR.search(line)
        if neighbour and OUT_OF_MEMORY.search(line):
            named = ", ".join(f"pid {found['pid']} holds {found['held']}" for found in NEIGHBOUR.finditer(line))
            return _with_holders(scene, line, {"named": named, "pids": neighbour["pid"]})
    return None


def _with_holders(scene: Scene, line: str, parts: dict[str, str]) -> Signs:
    holders = scene.holders()
    pids = list(dict.fromkeys(re.findall(r"\bpid (\d+)", " ".join(holders)))) or [parts[key] for key in ("pids",) if key in parts]
    who = "; ".join(holders) or parts.get("named") or "no process is to be seen that holds it: perhaps one of another container, or one that has just ended"
    return Signs((line,), {**parts, "who": who, "look": LOOK.format(pids=",".join(pids)) if pids else "nvidia-smi"})


def what_is_free(scene: Scene, signs: Signs) -> Iterable[Change]:
    share = math.floor(100 * float(signs.parts["free"]) / float(signs.parts["total"])) / 100
    if 0.1 <= share < scene.settings.gpu_memory_util:
        yield Change("GPU_MEMORY_UTIL", share, "what that GPU has free", known=False)


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


def kv_cache_that_fits(scene: Scene, signs: Signs) -> Iterable[Change]:
    """Two GiB stay for what the processes themselves need."""
    value = max(1, int(float(signs.parts["free"])) - 2)
    if value < scene.settings.cpu_kv_cache_gib:
        yield Change("CPU_KV_CACHE_GIB", value, f"{signs.parts['free']} GiB of this host's memory are free")


def port_taken(scene: Scene) -> Signs | None:
    line = next((line for line in scene.complaints if "Address already in use" in line or "[Errno 98]" in line), None)
    if line is None:
        return None
    owner = scene.port_owner()
    return Signs((line,), {"port": str(scene.settings.port), "who": f" by {owner}" if owner else ", or was until just now"})


def file_damaged(pattern: str) -> Seen:
    """A file of the checkpoint could not be read; which one vLLM seldom says, so the files are looked at."""
    wanted = re.compile(pattern)

    def seen(scene: Scene) -> Signs | None:
        lines = [line for line in scene.complaints if wanted.search(line)]
        if not lines:
            return None
        bad = scene.bad_files()
        return Signs(tuple(lines[:MOST_EVIDENCE]), {"files": "; ".join(bad[:MOST_EVIDENCE]) or "which one, only their hashes can tell"})

    return seen


def arguments_left(scene: Scene, signs: Signs) -> Iterable[Change]:
    """VLLM_EXTRA_ARGS without what vLLM does not take."""
    refused = signs.parts.get("arguments", "").split()
    extra = scene.settings.vllm_extra_args
    left = [word for word in extra if word not in refused]
    if len(left) < len(extra):
        yield Change("VLLM_EXTRA_ARGS", " ".join(left), f"without {' '.join(word for word in extra if word in refused)}", known=True)


def together(*several: Seen) -> Seen:
    """The first of them that sees its signs."""

    def seen(scene: Scene) -> Signs | None:
        return next((signs for one in several if (signs := one(scene))), None)

    return seen


def stalled(scene: Scene) -> Signs | None:
    """A step that took too long, after the engine core waited in vain for its workers. The waiting alone is no sign: it does so
    during every long compilation.
    """
    late = [line for line in scene.complaints if re.search(r"RPC call to \S+ timed out", line)]
    waiting = [line.strip() for line in scene.log if "No available shared memory broadcast block found" in line]
    return Signs((late[0], *waiting[-1:])) if late else None


def nothing_else(scene: Scene) -> Signs:
    """What the log says of itself, or its last lines. Always a sign. A signal speaks for itself where the log adds nothing."""
    headline = "" if scene.returncode < 0 and not scene.root.told else scene.root.headline
    return Signs(scene.root.lines[: MOST_EVIDENCE + 2], {"headline": headline})
