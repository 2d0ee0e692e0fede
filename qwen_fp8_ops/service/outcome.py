"""How a run ended: why, with what exit code, and what was left that should be gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.failures.rule import Diagnosis
from qwen_fp8_ops.errors import ExitCode, GaveUpError, OpsError, TimedOutError
from qwen_fp8_ops.outside import clock, gpus, net, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.outside.weight_traces import remove_sockets
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.program import Program
from qwen_fp8_ops.service.ladder import Pause
from qwen_fp8_ops.service.orphans import is_marked
from qwen_fp8_ops.service.policy import GiveUp
from qwen_fp8_ops.service.states import State

GPU_MEMORY_SECONDS = 60.0
"""The driver gives memory back some time after the process is gone (vLLM issues 20305, 56830)."""
GPU_MEMORY_SLACK_BYTES = 256 << 20


@dataclass(frozen=True)
class Failure:
    """Why the service ends without having been asked to."""

    state: State
    error: OpsError

    @classmethod
    def of_program(cls, decision: GiveUp, program: Program, diagnosis: Diagnosis | None) -> Failure:
        """The error's code is the cause's, where a rule knows it. ``diagnosis`` is None for one that did not die by itself."""
        what = "The engine" if program.is_engine else f"The program {program.name}"
        evidence = [line for line in diagnosis.evidence if line not in decision.why] if diagnosis else []
        lines = "".join(f"\n    {line}" for line in evidence)
        message = f"{what} does not run: {decision.why}" + (f"\n  What was seen:{lines}" if evidence else "")
        fix = "\n".join([*([diagnosis.remedy] if diagnosis and diagnosis.remedy else []), f"Whole log: {program.log}"])
        if decision.code == "gave-up":
            return cls(State.GAVE_UP, GaveUpError(message, fix=fix))
        known = diagnosis.code if diagnosis and diagnosis.known else ""
        return cls(State.FAILED, OpsError(message, code=known or ("engine-failed" if program.is_engine else "program-failed"), fix=fix))

    @classmethod
    def too_slow(cls, program: Program, phase: str) -> Failure:
        message = f"{program.name} was not ready after {program.ready_seconds} s (phase: {phase})"
        fix = "Set START_TIMEOUT higher if it was still loading; `qwen-fp8 logs` shows how far it came."
        return cls(State.FAILED, TimedOutError(message, code="start-timeout", fix=fix))


@dataclass(frozen=True)
class Outcome:
    """``leftovers`` names, in words, what could not be confirmed to be gone. ``requeue``: the job that SLURM is to start again."""

    failure: Failure | None
    was_ready: bool
    leftovers: tuple[str, ...]
    requeue: str | None = None

    @property
    def state(self) -> State:
        if self.failure:
            return self.failure.state
        return State.FAILED if self.leftovers else State.STOPPED

    @property
    def exit_code(self) -> ExitCode:
        if self.failure:
            return self.failure.error.exit_code
        if self.leftovers:
            return ExitCode.FAILED
        return ExitCode.DONE if self.was_ready else ExitCode.INTERRUPTED

    @property
    def error(self) -> OpsError | None:
        if self.failure:
            return self.failure.error
        if not self.leftovers:
            return None
        return leftovers_error(self.leftovers)


def leftovers_error(leftovers: Iterable[str]) -> OpsError:
    return OpsError(
        "Stopped, but not everything is gone: " + "; ".join(leftovers),
        code="leftovers",
        fix="See who holds it: `nvidia-smi`, `ps -p PID -o pid,stat,wchan,cmd`. A process that outlives SIGKILL hangs in the kernel and needs a reboot.",
    )


def gpu_memory_used(plan: LaunchPlan) -> dict[str, int]:
    """Bytes used on each GPU, by uuid; empty where the plan needs none."""
    if plan.settings.on_cpu:
        return {}
    return {gpu.uuid: gpu.memory_used_bytes for gpu in gpus.snapshot().gpus if gpu.uuid and gpu.memory_used_bytes is not None}


def find_leftovers(plan: LaunchPlan, paths: RunPaths, not_ended: Iterable[Identity], used_before: Mapping[str, int], pause: Pause) -> tuple[str, ...]:
    """After everything was ended: living processes, ports of ours that still listen, GPU memory that was not given back.

    Args:
        used_before: GPU memory before the start, in bytes by uuid.
    """
    found = [f"pid {left.pid} still runs ({process.command_line(left.pid)[:80] or 'no command'})" for left in not_ended if left.alive]
    sockets = remove_sockets(paths.weight_sockets)
    found += [sockets] if sockets else []
    for program in plan.programs:
        if not program.port:
            continue
        owner = net.port_owner(program.host, program.port)
        if owner and owner.pid and is_marked(owner.pid, paths):  # somebody else may have taken the port by now
            found.append(f"port {program.port} is still in use by {owner}")
    deadline = clock.monotonic() + GPU_MEMORY_SECONDS
    while (held := _held(plan, used_before)) and clock.monotonic() < deadline and not pause(0.5):
        pass
    return tuple(found + held)


def _held(plan: LaunchPlan, used_before: Mapping[str, int]) -> list[str]:
    now = gpu_memory_used(plan) if used_before else {}
    more = {uuid: used - used_before.get(uuid, 0) for uuid, used in now.items()}
    return [f"GPU {uuid} holds {extra >> 20} MiB more than before the start" for uuid, extra in more.items() if extra > GPU_MEMORY_SLACK_BYTES]
