"""When a program died: gathers what the log, the kernel, the GPUs and the memory plan say, and lets the rules judge it.

What the kernel had told before is remembered, so that each death is blamed only on what came since.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.failures.diagnose import diagnose
from qwen_fp8_ops.engine.failures.host_signs import XID
from qwen_fp8_ops.engine.failures.rule import Diagnosis
from qwen_fp8_ops.engine.failures.rules import UNKNOWN
from qwen_fp8_ops.engine.failures.scene import Scene
from qwen_fp8_ops.outside import clock, gpus, host_memory, kernel_log, net
from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.program import Program
from qwen_fp8_ops.plan.second_try import replan
from qwen_fp8_ops.plan.situation import Situation
from qwen_fp8_ops.plan.visible import visible
from qwen_fp8_ops.preflight.gpu_memory import Holder
from qwen_fp8_ops.service import log_files
from qwen_fp8_ops.service.child import Child
from qwen_fp8_ops.weights.verify import verify_fast

LOG_LINES_READ = 4000
GIB = 1 << 30
STAMP = re.compile(r"^(?:\[\s*[\d.]+\]|\d{4}-\d\d-\d\dT\S+(?: \S+ kernel:)?)\s*")
"""Of `dmesg`, with ISO times or without, and of `journalctl --output=short-iso`."""


class PostMortem:
    def __init__(self, paths: RunPaths, ends_at: Callable[[], str | None]) -> None:
        """``ends_at`` tells when the SLURM job ends, ISO 8601; None where nothing ends it."""
        self._paths = paths
        self._ends_at = ends_at
        self._kernel_lines = Counter(map(_without_stamp, _kernel_lines()))
        self._oom_kills = host_memory.oom_kills()

    def examine(self, child: Child, returncode: int, plan: LaunchPlan, *, served: bool) -> Diagnosis:
        """
        Args:
            child: nothing of it runs any more: what is still held of GPUs and port is somebody else's.
            served: was this attempt ready at some time?
        """
        program, ends_at = child.program, self._ends_at()
        scene = Scene(
            log=tuple(log_files.last_lines(Path(program.log), LOG_LINES_READ)),
            returncode=returncode,
            settings=plan.settings,
            was_ready=served,
            pid=child.identity.pid if child.identity else None,
            kernel_lines=self._new_kernel_lines(program, plan),
            oom_kills=self._new_oom_kills(),
            seconds_left=-clock.seconds_since(ends_at) if ends_at else None,
            holders=partial(_holders, program, plan),
            bad_files=partial(_bad_files, plan.model_path),
            port_owner=partial(_port_owner, program),
        )
        if not program.loads_weights:
            return diagnose(scene, rules=(UNKNOWN,))
        situation = Situation(plan.settings, plan.model_path, self._paths, os.environ)
        room = None if scene.kv_room_gib is None else round(scene.kv_room_gib * GIB)
        return diagnose(scene, lambda changes: replan(situation, changes, room))

    def _new_kernel_lines(self, program: Program, plan: LaunchPlan) -> tuple[str, ...]:
        before, now = self._kernel_lines, _kernel_lines()
        self._kernel_lines = Counter(map(_without_stamp, now))
        lines = [line for line in now if _is_more(line, before)]
        if not any(XID.search(line) for line in lines):
            return tuple(lines)
        ours = {_bus(gpu.pci_bus_id) for gpu in _our_gpus(program, plan) if gpu.pci_bus_id}
        return tuple(line for line in lines if not ours or not (found := XID.search(line)) or _bus(found["bus"]) in ours)

    def _new_oom_kills(self) -> int:
        before, self._oom_kills = self._oom_kills, host_memory.oom_kills()
        return max(0, self._oom_kills - before)


def _kernel_lines() -> list[str]:
    return kernel_log.lines(f"{kernel_log.XID}|{kernel_log.OUT_OF_MEMORY}")


def _without_stamp(line: str) -> str:
    """The stamp is computed anew for each look, and then differs by some microseconds."""
    return STAMP.sub("", line)


def _is_more(line: str, before: Counter[str]) -> bool:
    """Is the line one more of its text than were there before? Takes it off the count."""
    text = _without_stamp(line)
    before[text] -= 1
    return before[text] < 0


def _our_gpus(program: Program, plan: LaunchPlan) -> tuple[Gpu, ...]:
    environ: Mapping[str, str] = {**os.environ, **program.env}
    return () if plan.settings.on_cpu else visible(environ, gpus.snapshot().gpus)[: plan.settings.tensor_parallel_size]


def _bus(text: str) -> str:
    """One form for ``00000000:1B:00.0`` (NVML) and ``0000:1b:00`` (the kernel)."""
    *domain, bus, device = text.lower().partition(".")[0].split(":")
    return f"{int(domain[0], 16) if domain else 0:x}:{bus}:{device}"


def _holders(program: Program, plan: LaunchPlan) -> tuple[str, ...]:
    return tuple(str(Holder(gpu.index, one.pid, one.memory_bytes)) for gpu in _our_gpus(program, plan) for one in gpu.processes)


def _bad_files(model: Path) -> tuple[str, ...]:
    return tuple(map(str, verify_fast(model).bad))


def _port_owner(program: Program) -> str:
    try:
        owner = net.port_owner(program.host, program.port)
    except OSError:
        return ""
    return str(owner) if owner else ""
