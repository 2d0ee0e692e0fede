"""The errors that the plan foretells, word for word those of the installed vLLM: each is provoked there, in one child process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from qwen_fp8_ops.plan import refusals

GIB = 1 << 30

PROGRAM = """
import json
from types import SimpleNamespace as Record
from unittest import mock
from qwen_fp8_ops.outside import torchvision_cure
torchvision_cure.cure_torchvision()
from vllm.config.model import ModelConfig
from vllm.model_executor.layers.quantization.utils import fp8_utils
from vllm.v1.core import kv_cache_utils
from vllm.v1.worker import utils

GIB = 1 << 30

def said(call, *arguments):
    try:
        call(*arguments)
    except ValueError as error:
        return "ValueError: " + str(error)
    return "nothing"

def with_ranks(ranks, call, *arguments):
    with mock.patch("vllm.distributed.get_tensor_model_parallel_world_size", lambda: ranks):
        return said(call, *arguments)

snapshot = Record(device_="cuda:3", free_memory=int(70.004 * GIB), total_memory=81080 << 20)
parallel = Record(enable_hc_sp=False, tensor_parallel_size=3)
model = Record(model_arch_config=Record(total_num_attention_heads=64))
check = kv_cache_utils._check_enough_kv_cache_memory
print(json.dumps({
    "context": said(check, int(8.8 * GIB), lambda: 12_616_466_432, 262144, lambda memory: 196672),
    "context, hopeless": said(check, 5, lambda: 12_616_466_432, 262144, lambda memory: 0),
    "no room": said(check, 0, lambda: 1, 4096, lambda memory: 0),
    "not free": said(utils.request_memory, snapshot, Record(gpu_memory_utilization=0.9)),
    "blocks": with_ranks(8, fp8_utils.validate_fp8_block_shape_moe, 192, [128, 128]),
    "blocks down": with_ranks(8, fp8_utils.validate_fp8_block_shape_moe, 192, [64, 128]),
    "heads": said(ModelConfig.verify_with_parallel_config, model, parallel),
}))
"""


@pytest.fixture(scope="module")
def engine() -> dict[str, Any]:
    if find_spec("vllm") is None:
        pytest.skip("needs vLLM: the cpu or gpu extra")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_each_refusal_is_the_engines_own(engine: dict[str, Any]) -> None:
    assert engine == {
        "context": refusals.context_does_not_fit(262144, 12_616_466_432, int(8.8 * GIB), 196672),
        "context, hopeless": refusals.context_does_not_fit(262144, 12_616_466_432, 5, 0),
        "no room": refusals.no_room(),
        "not free": refusals.not_free(3, int(70.004 * GIB), 81080 << 20, 0.9),
        "blocks": refusals.experts_do_not_split(192, (128, 128)),
        "blocks down": refusals.experts_do_not_split(192, (64, 128)),
        "heads": refusals.heads_do_not_split(64, 3),
    }
