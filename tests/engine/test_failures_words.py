"""The words that the rules wait for are the installed vLLM's own: a release that changes them fails here, and not in the night."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.engine.failures.diagnose import diagnose
from qwen_fp8_ops.engine.failures.rules import RULES
from qwen_fp8_ops.engine.failures.scene import STAGE_OF_CALL, Scene
from tests.engine.test_failures import LOGS, settings_of

FOUND = importlib.util.find_spec("vllm")
needs_vllm = pytest.mark.skipif(FOUND is None, reason="vLLM is not installed")

WORDS = (
    # file, words in it that are not put together at run time
    ("v1/core/kv_cache_utils.py", "No available memory for the cache blocks"),
    ("v1/core/kv_cache_utils.py", "the estimated maximum model length is "),
    ("v1/core/kv_cache_utils.py", "To serve at least one request with the model's max seq len "),
    ("v1/worker/utils.py", "Free memory on device "),
    ("v1/worker/utils.py", "on startup "),
    ("v1/worker/gpu_worker.py", "Error in memory profiling. "),
    ("v1/worker/gpu_worker.py", "Available KV cache memory: %s GiB"),
    ("v1/worker/cpu_worker.py", "GiB) on kv cache"),
    ("v1/worker/gpu_model_runner.py", "Failed to load model - not enough GPU memory. "),
    ("v1/worker/gpu_model_runner.py", "CUDA out of memory occurred when warming up sampler with "),
    ("config/model.py", "than the derived max_model_len ("),
    ("model_executor/models/registry.py", "Model architectures "),
    ("model_executor/layers/quantization/utils/fp8_utils.py", "weight quantization block_n = "),
    ("model_executor/layers/quantization/utils/fp8_utils.py", "is not divisible by weight quantization block_k = "),
    ("model_executor/layers/fused_moe/oracle/fp8.py", "deployment configuration"),
    ("model_executor/kernels/linear/scaled_mm/deep_gemm.py", "Supports only output dtype of bfloat16"),
    ("model_executor/kernels/linear/scaled_mm/cpu.py", "Only bfloat16/float32 output dtype supported."),
    ("model_executor/model_loader/weight_utils.py", "Weight files referenced in index but missing: "),
    ("model_executor/model_loader/default_loader.py", "Cannot find any model weights with `"),
    ("distributed/device_communicators/shm_broadcast.py", "No available shared memory broadcast block found "),
    ("distributed/device_communicators/shm_broadcast.py", "Insufficient space in {shm_path} for "),
    ("v1/executor/multiproc_executor.py", "RPC call to {method} timed out."),
    ("v1/executor/multiproc_executor.py", "died unexpectedly (exit code: %s), "),
    ("v1/executor/multiproc_executor.py", "WorkerProc failed to start."),
    ("v1/executor/multiproc_executor.py", "WorkerProc hit an exception."),
    ("v1/engine/core.py", "EngineCore failed to start."),
    ("v1/engine/core.py", "Unexpected error pre-processing request %s"),
    ("v1/engine/core.py", "Invocation of %s method failed"),
    ("v1/engine/async_llm.py", "AsyncLLM output_handler failed."),
    ("config/device.py", "Failed to infer device type"),
    ("v1/worker/utils.py", "is less than the engine's budget after excluding "),
    ("v1/worker/utils.py", "Externally held weights on device "),
    ("model_executor/model_loader/weight_cache/protocol.py", "does not support CUDA IPC "),
    ("model_executor/model_loader/weight_cache/protocol.py", "does not support loading from pre-processed weights."),
    ("model_executor/model_loader/weight_cache/protocol.py", "Socket closed while receiving message"),
    ("model_executor/model_loader/weight_cache/protocol.py", "Refusing to use symlinked socket directory "),
    ("model_executor/model_loader/weight_cache/protocol.py", "is not owned by the current user"),
    ("model_executor/model_loader/weight_cache/ipc_loader.py", "WeightCacheKey mismatch on fields: "),
    ("model_executor/model_loader/weight_cache/ipc_loader.py", "Weight cache daemon did not become ready within "),
    ("model_executor/model_loader/weight_cache/ipc_loader.py", "Cannot connect to weight cache daemon at "),
    ("model_executor/model_loader/weight_cache/daemon.py", "Weight cache %s daemon rank %d loaded model (%s GiB allocated, "),
)


def source(file: str) -> str:
    assert FOUND is not None and FOUND.submodule_search_locations
    return (Path(FOUND.submodule_search_locations[0]) / file).read_text(encoding="utf-8")


@needs_vllm
@pytest.mark.parametrize(("file", "words"), WORDS)
def test_vllm_still_says_so(file: str, words: str) -> None:
    assert words in source(file)


@needs_vllm
@pytest.mark.parametrize("name", STAGE_OF_CALL)
def test_the_stages_of_a_start_are_still_called_so(name: str) -> None:
    assert f"def {name}(" in source("v1/worker/gpu_worker.py")


ALL_LINES = sorted({line for path in LOGS.rglob("*.log") for line in path.read_text().splitlines()})
KERNEL = ("NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.", "Out of memory: Killed process 4100 (python)", "NVRM: Xid (PCI:0000:1b:00): 31")


@given(
    log=st.lists(st.sampled_from(ALL_LINES) | st.text(), max_size=30),
    returncode=st.integers(-64, 255),
    was_ready=st.booleans(),
    kernel=st.lists(st.sampled_from(KERNEL) | st.text(), max_size=3),
    seconds_left=st.none() | st.floats(-100, 100),
)
def test_whatever_a_log_holds_there_is_one_diagnosis(log: list[str], returncode: int, was_ready: bool, kernel: list[str], seconds_left: float | None) -> None:
    found = diagnose(Scene(tuple(log), returncode, settings_of(), was_ready=was_ready, kernel_lines=tuple(kernel), seconds_left=seconds_left))
    assert found.code in {rule.code for rule in RULES}
    assert len(found.evidence) <= 6
    assert not found.fix.startswith("\n")
