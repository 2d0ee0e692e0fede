"""Deaths that the log alone does not explain: the kernel, the job's time, other processes on our GPUs."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from qwen_fp8_ops.engine.failures.diagnose import diagnose
from qwen_fp8_ops.engine.failures.scene import Scene
from tests.engine.test_failures import HEALTHY, changes, read, scene_of, settings_of

KILLED = -signal.SIGKILL
OURS = "Memory cgroup out of memory: Killed process 4301 (VLLM::Worker_TP) total-vm:91382912kB, anon-rss:61203456kB, file-rss:88064kB, shmem-rss:0kB, UID:1000"
BY_NAME = OURS.replace("4301", "977301")
OTHERS = OURS.replace("4301", "88").replace("VLLM::Worker_TP", "python3")
XID = "NVRM: Xid (PCI:0000:1b:00): {}, pid={}, name=VLLM::Worker_TP, {}"
FALLEN = XID.format(79, 4303, "GPU has fallen off the bus.")
FAULT = XID.format(31, 4303, "Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2a_11e00000")
ENDED = XID.format(45, 4303, "Ch 00000010")


def killed(**facts: Any) -> Scene:
    return Scene(read("healthy/gpu_serving"), KILLED, facts.pop("settings", settings_of()), was_ready=True, **facts)


@pytest.mark.parametrize("line", [OURS, BY_NAME])
@pytest.mark.parametrize("name", ["composed/worker_killed", "core_killed", "worker_killed_loading"])
def test_the_kernel_killed_a_process_of_ours(name: str, line: str) -> None:
    found = diagnose(scene_of(name, kernel_lines=("eth0: link up", OTHERS, line)))
    assert (found.code, found.retryable, found.evidence) == ("host-oom", True, (line,))
    assert found.cause == "the kernel killed VLLM::Worker_TP: the host, or the job's share of it, ran out of memory"


def test_the_api_server_itself_was_killed() -> None:
    api = OURS.replace("4301", "4100").replace("VLLM::Worker_TP", "python")
    assert diagnose(killed(kernel_lines=(api,))).code == "host-oom"
    assert diagnose(killed(kernel_lines=(OTHERS,))).code == "unknown", "somebody else's process was"


def test_where_the_kernels_log_is_closed_the_control_groups_count_tells() -> None:
    found = diagnose(scene_of("composed/worker_killed", oom_kills=2))
    assert found.code == "host-oom"
    assert found.evidence == ("oom_kill 2 (memory.events of our control group, since this attempt began)",)


def test_a_kill_of_another_process_does_not_explain_an_error_that_the_log_tells() -> None:
    found = diagnose(scene_of("composed/fp8_blocks", oom_kills=1, kernel_lines=(OTHERS, FALLEN)))
    assert found.code == "fp8-blocks"


def test_more_memory_is_proposed_where_it_can_be_had() -> None:
    in_job = settings_of(SLURM_MEM="320G", LOAD_STRATEGY="eager")
    assert changes(diagnose(killed(kernel_lines=(OURS,), seconds_left=7000.0, settings=in_job))) == {"SLURM_MEM": "640G", "LOAD_STRATEGY": "lazy"}
    assert changes(diagnose(killed(kernel_lines=(OURS,)))) == {}
    on_cpu = settings_of(GPU_COUNT=0, TENSOR_PARALLEL_SIZE=1, CPU_KV_CACHE_GIB=8)
    assert changes(diagnose(killed(kernel_lines=(OURS,), settings=on_cpu))) == {"CPU_KV_CACHE_GIB": 4}


@pytest.mark.parametrize("returncode", [KILLED, -signal.SIGTERM, 0, 143])
def test_the_jobs_time_was_up(returncode: int) -> None:
    limit = "slurmstepd: error: *** JOB 4711 ON node01 CANCELLED AT 2026-11-21T18:00:00 DUE TO TIME LIMIT ***"
    found = diagnose(Scene((*read("healthy/gpu_serving"), limit), returncode, settings_of(), was_ready=True, seconds_left=-3.0))
    assert (found.code, found.retryable, found.evidence) == ("time-limit", False, (limit,))
    assert changes(found) == {"SLURM_AT_END": "requeue"}


def test_a_kill_long_before_the_end_is_not_the_time_limits() -> None:
    assert diagnose(killed(seconds_left=3000.0)).code == "unknown"
    assert diagnose(killed(seconds_left=None)).code == "unknown"


def test_an_error_that_the_log_tells_is_not_the_time_limits_though_the_end_is_near() -> None:
    assert diagnose(scene_of("composed/no_kv_cache_memory", seconds_left=5.0)).code == "no-kv-cache-memory"


@pytest.mark.parametrize("name", ["composed/nccl_watchdog", "composed/illegal_memory_access", "composed/step_timeout", "composed/worker_killed"])
def test_a_gpu_that_failed_is_the_cause_of_what_the_others_say(name: str) -> None:
    found = diagnose(scene_of(name, kernel_lines=(ENDED, FALLEN)))
    assert (found.code, found.retryable, found.evidence) == ("gpu-broken", False, (FALLEN,))
    assert found.cause == "the GPU at PCI 0000:1b:00 failed: it has fallen off the bus (Xid 79)"
    assert "--exclude=$(hostname -s)" in found.fix


def test_a_fault_of_the_program_on_a_gpu_is_tried_again() -> None:
    found = diagnose(scene_of("composed/illegal_memory_access", kernel_lines=(FAULT,)))
    assert (found.code, found.retryable) == ("gpu-fault", True)
    assert "(Xid 31)" in found.cause


def test_an_xid_that_only_tells_of_an_ended_program_is_no_cause() -> None:
    assert diagnose(scene_of("composed/illegal_memory_access", kernel_lines=(ENDED,))).code == "cuda-kernel"
    assert diagnose(killed(kernel_lines=(ENDED,))).code == "unknown"


@pytest.mark.parametrize("name", HEALTHY)
def test_lines_of_the_kernel_do_not_accuse_an_engine_that_was_stopped(name: str) -> None:
    assert diagnose(scene_of(name, 0, kernel_lines=(OURS, FALLEN, FAULT), oom_kills=3)).code == "unknown"


def test_whoever_holds_the_gpus_memory_is_named_with_a_command_that_shows_them() -> None:
    holders = ("pid 4711 (alice: python train.py) holds 13.08 GiB on GPU 0", "pid 4712 (?) holds 0.50 GiB on GPU 0")
    found = diagnose(scene_of("composed/gpu_memory_not_free", holders=lambda: holders))
    assert found.cause.endswith("less than GPU_MEMORY_UTIL wants; " + "; ".join(holders))
    assert found.fix.splitlines()[0] == "ps -o pid,user,lstart,cmd -p 4711,4712"
    nobody = diagnose(scene_of("composed/gpu_memory_not_free"))
    assert "no process is to be seen that holds it" in nobody.cause
    assert nobody.fix == "nvidia-smi"


def test_the_other_process_that_torch_names_is_told_even_when_it_is_gone() -> None:
    found = diagnose(scene_of("composed/gpu_memory_taken"))
    assert found.cause.endswith("pid 2684311 holds 41.51 GiB")
    assert found.fix.splitlines()[0] == "ps -o pid,user,lstart,cmd -p 2684311"


def test_a_process_of_our_own_is_no_neighbour() -> None:
    log = tuple(line.replace("Process 2684311", "Process 4301") for line in read("composed/gpu_memory_taken"))
    assert diagnose(Scene((*log, "(Worker_TP1_EP1 pid=4301) INFO 11-21 09:00:00 [x.py:1] here"), 1, settings_of())).code == "cuda-oom-load"


def test_an_engine_that_was_asked_to_end_was_not_killed_by_the_kernel() -> None:
    asked = Scene(read("healthy/gpu_stopped"), -signal.SIGTERM, settings_of(), was_ready=True, kernel_lines=(OURS, FALLEN), oom_kills=1)
    assert diagnose(asked).code == "unknown"


def test_too_little_free_for_any_share_proposes_none() -> None:
    log = tuple(line.replace("(66.1/79.18 GiB)", "(3.1/79.18 GiB)") for line in read("composed/gpu_memory_not_free"))
    assert changes(diagnose(Scene(log, 1, settings_of()))) == {}
