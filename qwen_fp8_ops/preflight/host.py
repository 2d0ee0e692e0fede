"""What the host gives the engine beside GPUs: memory, shared memory, limits, and a place free of what an earlier run left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from qwen_fp8_ops.outside import host_memory, limits, process
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Standing, Subject
from qwen_fp8_ops.slurm.allocation import salloc_line

GROUP = "Host"
GIB, MIB = 1 << 30, 1 << 20
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written

PROCESS_BYTES = 2 * GIB
"""Of host memory, for the API server, the engine core and each worker; on the CPU 0.8, 0.7 and 1.8 GB were seen with next to no weights."""

RING_BYTES = 10 * 24 * MIB
COMMAND_RING_BYTES = 10 * 16 * MIB
"""vLLM's message rings in /dev/shm: one of each worker, one for all (multiproc_executor.py: 10 chunks; VLLM_MQ_MAX_CHUNK_BYTES_MB).
It refuses to start when the largest does not fit; the kernel ends it with SIGBUS when all of them do not."""

VLLM_OPEN_FILES = 65_535
FEW_OPEN_FILES = 4096
TOO_FEW_OPEN_FILES = 256
LOCKED_BYTES = GIB


@check(GROUP, {"host-memory": "the host, or the job's share of it, has memory for the processes and for the weights while they are read"})
def check_host_memory(subject: Subject) -> Iterator[Finding]:
    if subject.standing is Standing.RUNNING:
        yield Finding("host-memory", "pass", "the service is running; what it holds is given back before it starts again")
        return
    settings, free = subject.settings, host_memory.available_bytes()
    needed = (2 + settings.tensor_parallel_size) * PROCESS_BYTES
    more = f"Ask for more:\n{salloc_line(settings)}" if not settings.on_cpu else "End other programs; `ps aux --sort=-rss | head` names the largest."
    if settings.on_cpu:
        needed = needed // 2 + settings.cpu_kv_cache_gib * GIB
    if free < needed:
        yield Finding("host-memory", "fail", f"{free / GIB:.1f} GiB of host memory are free, the engine's processes take about {needed / GIB:.0f}", more)
    elif free < subject.weight_bytes:
        seen = f"{free / GIB:.0f} GiB of host memory are free, less than the {subject.weight_bytes / GIB:.0f} GiB of weights: they are read from the disk at every start"
        yield Finding("host-memory", "warn", seen, more)
    else:
        yield Finding("host-memory", "pass", f"{free / GIB:.1f} GiB free")


@check(GROUP, {"shm-size": "shared memory has room for the rings through which the engine's processes speak"})
def check_shared_memory(subject: Subject) -> Iterator[Finding]:
    largest = max(RING_BYTES, COMMAND_RING_BYTES)
    whole = COMMAND_RING_BYTES + subject.settings.tensor_parallel_size * RING_BYTES
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except FileNotFoundError:
        yield Finding("shm-size", "fail", f"{SHARED_MEMORY} is missing", f"mount -t tmpfs -o size=8g tmpfs {SHARED_MEMORY} (root)")
        return
    fix = f"In a container: --shm-size=8g or --ipc=host. Else (root): mount -o remount,size=8g {SHARED_MEMORY}\nLeft by ended programs? ls -l {SHARED_MEMORY}"
    if free < largest:
        yield Finding("shm-size", "fail", f"{free // MIB} MiB are free in {SHARED_MEMORY}, vLLM refuses to start with less than {largest // MIB}", fix)
    elif free < whole:
        yield Finding("shm-size", "warn", f"{free // MIB} MiB are free in {SHARED_MEMORY}, the engine's processes may fill {whole // MIB}", fix)
    else:
        yield Finding("shm-size", "pass", f"{free / GIB:.1f} GiB free in {SHARED_MEMORY}")


@check(GROUP, {"ulimit-nofile": "enough files and connections may be open at once", "ulimit-memlock": "GPUs and network cards may pin host memory"})
def check_limits(subject: Subject) -> Iterator[Finding]:
    yield _check_open_files(limits.open_files())
    locked = limits.locked_bytes().soft
    if subject.settings.tensor_parallel_size > 1 and not subject.settings.on_cpu and locked is not None and locked < LOCKED_BYTES:
        seen = f"Only {locked // 1024} KiB of memory may be pinned: NCCL over InfiniBand and direct storage need more"
        yield Finding("ulimit-memlock", "warn", seen, f"ulimit -l unlimited\n{_raise_hard_limit('MEMLOCK')}, in a container --ulimit memlock=-1.")
    else:
        yield Finding("ulimit-memlock", "pass", "no limit" if locked is None else f"{locked // 1024} KiB")


def _check_open_files(files: limits.Limit) -> Finding:
    count = files.raised_to(VLLM_OPEN_FILES)  # as vLLM does when it starts
    if count is None or count >= FEW_OPEN_FILES:
        return Finding("ulimit-nofile", "pass", "no limit" if count is None else f"{count} files")
    raising = f"ulimit -n {files.hard}\n" if files.hard and files.soft and files.hard > files.soft else ""
    seen = f"Only {count} files may be open at once; connections count as well"
    return Finding("ulimit-nofile", "fail" if count < TOO_FEW_OPEN_FILES else "warn", seen, raising + _raise_hard_limit("NOFILE") + ".")


def _raise_hard_limit(name: str) -> str:
    return f"Where that is refused or too little: /etc/security/limits.conf, SLURM's PropagateResourceLimitsExcept={name}"


@check(GROUP, {"leftovers": "no process of an earlier run of this service is left"})
def check_leftovers(subject: Subject) -> Iterator[Finding]:
    if subject.standing is Standing.RUNNING or not subject.own_pids:
        return
    names = ", ".join(f"pid {pid} ({process.command_line(pid)[:40] or '?'})" for pid in sorted(subject.own_pids))
    if subject.standing is Standing.STARTING:
        fix = "It hangs in the kernel, where only a reboot ends it: ps -o pid,stat,wchan,cmd -p PID\nUse another node and tell the administrators."
        yield Finding("leftovers", "fail", f"An earlier run is still there, and outlived SIGKILL: {names}", fix)
    else:
        yield Finding("leftovers", "warn", f"An earlier run left processes behind: {names}", "./stop_service.sh ends them, and so does the next start.")
