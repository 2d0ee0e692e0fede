"""vLLM's own loader of mapped weights over the demo model: what it leaves out, and the whole of it with ours.

Only a CUDA tensor can be mapped; any other is handed over by value. All else is as on a GPU, and so is what is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900), pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: the cpu or gpu extra")]

PROGRAM = """
import json, pathlib, socket, sys, tempfile, threading
from importlib import import_module

if __name__ == "__main__":
    from qwen_fp8_ops.engine import cpu_launcher, mapped_weights, weight_sockets
    from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision

    cure_torchvision() and cpu_launcher._cure_inspection()
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.model_executor.model_loader.weight_cache import daemon, ipc_loader, protocol
    from vllm.v1.worker.workspace import init_workspace_manager

    torch.accelerator.empty_cache, torch.accelerator.current_device_index = lambda: None, lambda: 0
    ipc_loader.check_ipc_platform_support = lambda: None
    common = {"model": sys.argv[1], "dtype": "bfloat16", "max_model_len": 1024, "max_num_seqs": 2, "max_num_batched_tokens": 1024, "enforce_eager": True}
    config = EngineArgs(**common).create_engine_config()
    init_distributed_environment(1, 0, "file://" + tempfile.mktemp(), 0, "gloo")
    with set_current_vllm_config(config):
        ensure_model_parallel_initialized(1, 1)
        init_workspace_manager(torch.device("cpu"))
        whole = get_model_loader(config.load_config).load_model(config, config.model_config)

    load_format = mapped_weights.FLAG.removeprefix("--load-format=")

    def load():
        mapping = EngineArgs(**common, load_format=load_format, model_loader_extra_config={"fallback": False}).create_engine_config()
        entries, aliases = daemon.export_entries(whole)
        loader = get_model_loader(mapping.load_config)
        loader._fetch_entries = lambda config: protocol.WeightCacheState(entries, aliases, daemon.export_model_attrs(whole))
        told["loader"] = type(loader).__name__
        with set_current_vllm_config(mapping):
            return loader.load_model(mapping, mapping.model_config)

    def without_memory(model):
        found = []
        for name, module in model.named_modules():
            for key, value in vars(module).items():
                found += [f"{name}.{key}" for one in mapped_weights._tensors(value, torch) if one.is_meta and one.numel()]
        return sorted(set(found))

    told = {}
    told["vLLM leaves out"] = without_memory(load())
    mapped_weights.complete_mapped_weights(["serve", mapped_weights.FLAG])
    model = load()
    told["we leave out"] = without_memory(model)
    scratch = getattr(model, mapped_weights.SCRATCH)
    told["scratch"] = [[str(one.device), str(one.dtype), list(one.shape), float(one.abs().sum())] for one in scratch]
    told["as in the whole"] = [list(one.shape) for one in getattr(whole, mapped_weights.SCRATCH)]
    ours, theirs = ({**dict(one.named_parameters()), **dict(one.named_buffers())} for one in (model, whole))
    told["tensors"] = len(ours)
    told["different"] = sorted(name for name in ours.keys() | theirs.keys() if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name]))
    folder = pathlib.Path(tempfile.mkdtemp())
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(folder / "vllm_weight_cache_0.sock"))
    listening.listen()
    torch.accelerator.memory_allocated = lambda: 7

    def serve():
        for _ in range(2):
            visitor, _ = listening.accept()
            with visitor:
                daemon.WeightCacheDaemon._handle_connection(None, visitor)

    threading.Thread(target=serve, daemon=True).start()
    told["ranks"] = [weight_sockets.problem(folder, 1), weight_sockets.answers(folder, 60)]

    model.visual.something_new = torch.empty(3, device="meta")
    try:
        mapped_weights.complete(model)
    except mapped_weights.IncompleteWeightsError as error:
        told["refused"] = str(error)
    print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = tmp_path_factory.mktemp("weights") / "demo"
    made = subprocess.run([sys.executable, "-P", "-m", "qwen_fp8_ops.weights.demo", str(model)], capture_output=True, text=True, timeout=600, check=False)
    assert made.returncode == 0, made.stderr
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    script = Path(model).parent / "load.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(script), str(model)], env={**env, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_vllm_still_leaves_out_what_we_complete(told: dict[str, Any]) -> None:
    """When this fails because nothing is left out any more, ``engine/mapped_weights.py`` has had its day."""
    assert told["vLLM leaves out"] == [".deepstack_input_embeds"]


def test_nothing_is_left_out_with_our_loader(told: dict[str, Any]) -> None:
    assert told["loader"] == "WholeModelLoader"
    assert told["we leave out"] == []
    assert told["scratch"] == [["cpu", "torch.bfloat16", [1024, 256], 0.0]] * 3
    assert told["as in the whole"] == [[1024, 256]] * 3


def test_the_weights_are_those_of_the_cache(told: dict[str, Any]) -> None:
    assert told["tensors"] > 100
    assert told["different"] == []


def test_a_rank_of_vllm_understands_what_it_is_asked(told: dict[str, Any]) -> None:
    assert told["ranks"] == ["", ""]


def test_a_tensor_that_nobody_knows_is_refused_and_not_guessed(told: dict[str, Any]) -> None:
    assert told["refused"].startswith("weights from the cache leave visual.something_new without memory")
