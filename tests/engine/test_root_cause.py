"""Why an engine died, read from its log.

The fixtures are logs of real vLLM 0.32 starts on a CPU that were made to fail; of tracebacks only the last frames were kept. What
only a GPU does is put together from vLLM's, torch's and NCCL's own texts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.engine.complaints import LONGEST
from qwen_fp8_ops.engine.root_cause import SILENT, UNTOLD, RootCause, find_root_cause

LOGS = Path(__file__).parents[1] / "fixtures" / "engine_logs"

REAL = {
    "bad_flag": "vllm: error: unrecognized arguments: --no-such-flag",
    "bad_value": "vllm serve: error: argument --block-size: invalid int value: 'many'",
    "context_too_long": "ValidationError: 1 validation error for ModelConfig: Value error, User-specified max_model_len (1000000) is greater than the derived",
    "unsupported_architecture": "ValidationError: 1 validation error for ModelConfig: Value error, Model architectures ['Qwen9VLForEverything'] are not supported",
    "wrong_path": "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/models/demo'",
    "port_in_use": "OSError: [Errno 98] Address already in use",
    "missing_shard": "FileNotFoundError: Weight files referenced in index but missing: {'/models/demo/model-00002-of-00002.safetensors'}",
    "truncated_shard": "SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered",
    "kv_impossible": "ValueError: Available memory on node 0 (13.52/15.34 GiB) on kv cache allocation is less than requested memory for kv (1024.0 GiB)",
    "gate_missing": "The gate's configuration /srv/qwen/run/gate.json is missing. Start the service with: qwen-fp8 start",
    "tokenizer_damaged": "ValidationError: 1 validation error for VllmConfig: Value error, Expecting ',' delimiter: line 48 column 26 (char 1000)",
    "worker_killed_loading": SILENT,
    "worker_killed_serving": "Worker proc VllmWorker-0 died unexpectedly",
    "core_killed": SILENT,
}


def read(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text().splitlines()


def record(who: str, *lines: str, place: str = "multiproc_executor.py:953", clock: str = "10:00:00") -> list[str]:
    return [f"({who} pid={sum(map(ord, who))}) ERROR 11-21 {clock} [{place}] {line}" for line in lines]


def traceback(*message: str) -> list[str]:
    return ["Traceback (most recent call last):", '  File "/x/vllm/worker.py", line 7, in load', "    raise them(", *message]


AFTERMATH = [
    *record(
        "EngineCore",
        "EngineCore failed to start.",
        *traceback("Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."),
    ),
    "Process EngineCore:",
    *traceback("Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."),
    *traceback("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"),
]
CHAIN = "During handling of the above exception, another exception occurred:"
READY = ["INFO:     Application startup complete."]


@pytest.mark.parametrize("name", REAL)
def test_a_real_death_has_its_true_cause(name: str) -> None:
    found = find_root_cause(read(name))
    assert REAL[name] in found.headline
    assert found.told


def test_every_real_log_is_looked_at() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == {*REAL, "healthy", "refused_requests"}


@pytest.mark.parametrize("name", REAL)
def test_the_evidence_is_what_a_person_would_want(name: str) -> None:
    lines = find_root_cause(read(name)).lines
    assert len(lines) <= 3
    assert all(0 < len(line) <= LONGEST and "\n" not in line for line in lines)
    noise = ("pid=", "File ", "^^^", "input_value", "pydantic.dev", "nanobind", "leaked")
    assert not [line for line in lines if any(word in line for word in noise)]
    second_hand = [line for line in lines if "See root cause above" in line or "See stack trace" in line]
    assert not second_hand or lines[0] == SILENT


@pytest.mark.parametrize("name", ["healthy", "refused_requests"])
def test_a_healthy_log_accuses_nobody(name: str) -> None:
    log = read(name)
    found = find_root_cause(log)
    assert (found.told, found.headline) == (False, UNTOLD)
    assert not [line for line in found.lines if "leaked" in line]


def test_no_line_of_a_quiet_log_accuses_by_itself() -> None:
    assert not [line for line in read("healthy") if find_root_cause([line]).told]


def test_the_workers_own_error_comes_before_what_others_say_of_it() -> None:
    log = [*record("Worker_TP3_EP3", "WorkerProc failed to start.", *traceback("ValueError: No available memory for the cache blocks.")), *AFTERMATH]
    assert find_root_cause(log) == RootCause(("ValueError: No available memory for the cache blocks.",))
    assert find_root_cause([*AFTERMATH, *log]).lines[0] == "ValueError: No available memory for the cache blocks."


def test_a_message_over_several_lines_is_one_though_eight_workers_mix_theirs() -> None:
    message = [
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:94, NCCL version 2.27.5",
        "ncclUnhandledCudaError: Call to CUDA function failed.",
        "Last error:",
        "Cuda failure 'out of memory'",
    ]
    each = [record(f"Worker_TP{rank}_EP{rank}", "WorkerProc failed to start.", *traceback(*message)) for rank in range(8)]
    mixed = [line for lines in zip(*each, strict=True) for line in lines]
    found = find_root_cause([*mixed, *AFTERMATH])
    assert found.lines[0] == f"{message[0]}: {message[1]} Last error: {message[3]}"
    assert len(found.lines) == 1


def test_advice_that_cuda_adds_to_every_error_is_left_out() -> None:
    message = [
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.",
        "For debugging consider passing CUDA_LAUNCH_BLOCKING=1",
        "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        "",
    ]
    log = [*READY, *record("Worker_TP0_EP0", "WorkerProc hit an exception.", *traceback(*message)), *AFTERMATH]
    assert find_root_cause(log) == RootCause((message[0],))


def test_memory_that_ran_out_while_loading_is_told_with_vllms_own_advice() -> None:
    advice = "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization (original error: CUDA out of memory.)"
    log = [
        *record("Worker_TP0_EP0", advice, place="gpu_model_runner.py:5147"),
        *record("Worker_TP0_EP0", *traceback("torch.OutOfMemoryError: CUDA out of memory.")),
        *AFTERMATH,
    ]
    assert find_root_cause(log).lines == (advice, "torch.OutOfMemoryError: CUDA out of memory.")


def test_a_request_that_failed_long_before_is_not_why_the_engine_died() -> None:
    old = [
        *record("APIServer", "Error in preprocessing prompt inputs", *traceback("ValueError: Failed to load image"), place="serving.py:1"),
        "ERROR:    Exception in ASGI application",
        *traceback("KeyError: 'messages'"),
    ]
    death = record(
        "APIServer",
        "AsyncLLM output_handler failed.",
        *traceback("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."),
        place="async_llm.py:906",
    )
    assert find_root_cause([*READY, *old, *death]).headline == SILENT
    worker = record("Worker_TP0_EP0", *traceback("RuntimeError: CUDA error: uncorrectable ECC error encountered"))
    assert find_root_cause([*READY, *old, *worker, *death]).headline == "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    own = traceback("OSError: [Errno 24] Too many open files")
    assert find_root_cause([*READY, *old, *own]).lines == ("OSError: [Errno 24] Too many open files",)


def test_what_threads_of_torch_write_is_a_workers() -> None:
    watchdog = "[rank3]:[E1121 09:04:53.417220115 ProcessGroupNCCL.cpp:685] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=90211)"
    death = record(
        "APIServer",
        "AsyncLLM output_handler failed.",
        *traceback("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."),
        place="async_llm.py:906",
    )
    assert find_root_cause([*READY, watchdog, *death]).headline == watchdog


def test_the_output_handlers_own_error_ends_the_api_server() -> None:
    log = [*READY, *record("APIServer", "AsyncLLM output_handler failed.", *traceback("IndexError: list index out of range"), place="async_llm.py:906")]
    assert find_root_cause(log).lines == ("IndexError: list index out of range",)


@pytest.mark.parametrize(
    "began", ["ERROR:    Exception in ASGI application", "Task exception was never retrieved", "Exception ignored in: <function f at 0x7f>"]
)
def test_what_the_api_server_outlives_is_no_cause(began: str) -> None:
    chained = [*traceback("KeyError: 'x'"), "", CHAIN, "", *traceback("ValueError: y")]
    assert not find_root_cause([*READY, began, *chained]).told
    assert find_root_cause([*READY, began, *chained, "INFO:     127.0.0.1:1 - 500", *traceback("MemoryError")]).lines == ("MemoryError",)
    assert not find_root_cause([began, *chained], was_ready=True).told
    assert find_root_cause([began, *chained]).told, "before it served, nothing is a request's"


def test_an_inner_process_that_dies_before_it_can_log_is_heard() -> None:
    log = ["Process EngineCore:", *traceback("ImportError: libcudart.so.13: cannot open shared object file"), *AFTERMATH[-4:]]
    assert find_root_cause(log).headline == "ImportError: libcudart.so.13: cannot open shared object file"


def test_of_errors_that_follow_from_each_other_the_last_is_the_headline_and_the_first_is_kept() -> None:
    chained = [
        *traceback("KeyError: 'qwen4'"),
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        *traceback("ValueError: Unknown reasoning parser: qwen4"),
    ]
    assert find_root_cause([*traceback("TypeError: earlier and harmless"), *chained]).lines == (
        "ValueError: Unknown reasoning parser: qwen4",
        "KeyError: 'qwen4'",
    )


def test_what_the_gate_says_when_it_cannot_begin_is_heard() -> None:
    said = "The gate's configuration /run/gate.json is missing. Start the service with: qwen-fp8 start"
    log = ["INFO:     Waiting for application startup.", f"ERROR:    {said}", "ERROR:    Application startup failed. Exiting."]
    assert find_root_cause(log).lines == (said,)
    shown = ["ERROR:    Traceback (most recent call last):", '  File "/x/gate.py", line 1, in lifespan', "OSError: no", "", log[-1]]
    assert find_root_cause(shown).lines == ("OSError: no",)


@pytest.mark.parametrize("line", ["Fatal Python error: Segmentation fault", "terminate called after throwing an instance of 'c10::Error'"])
def test_a_process_that_python_cannot_save_is_heard(line: str) -> None:
    found = find_root_cause([*READY, line])
    assert found.headline == line


def test_an_empty_log_says_so() -> None:
    assert find_root_cause([]) == RootCause((), told=False)
    assert find_root_cause([]).headline == UNTOLD
    assert find_root_cause(["", "starting", "  "]).lines == ("starting",)


def test_no_more_lines_than_asked_for() -> None:
    log = [line for number in range(20) for line in record("Worker_TP0_EP0", *traceback(f"ValueError: {number} " + "x" * 1000), clock=f"10:00:{number:02}")]
    found = find_root_cause(log, most=3)
    assert [line[:13] for line in found.lines] == ["ValueError: 0", "ValueError: 1", "ValueError: 2"]
    assert {len(line) for line in found.lines} == {LONGEST}


ALL_LINES = [line for path in LOGS.glob("*.log") for line in path.read_text().splitlines()]


@given(st.lists(st.sampled_from(ALL_LINES) | st.text(), max_size=30))
def test_no_log_is_a_crash(log: list[str]) -> None:
    found = find_root_cause(log)
    assert len(found.lines) <= 6
    assert found.headline
