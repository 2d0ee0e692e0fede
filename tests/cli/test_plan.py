"""``qwen-fp8 plan`` as a person and a script call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine import version
from qwen_fp8_ops.engine.startup_log import EngineMemory
from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.plan.situation import Situation
from tests.plan.cases import CONFIG_30B

GIB = 1 << 30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "it's a home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QWEN_FP8_HOME", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: ExitCode = ExitCode.DONE) -> str:
        assert run(["plan", *arguments]) == code
        captured = capsys.readouterr()
        if code is ExitCode.USAGE:
            return captured.err
        assert captured.err == ""
        return captured.out

    return call


@pytest.fixture
def value(plan: Any) -> Any:
    def call(*arguments: str, code: ExitCode = ExitCode.DONE) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(plan(*arguments, "--json", code=code))
        return found

    return call


def test_the_verdict_stands_first_then_the_table_then_what_to_change(plan: Any) -> None:
    lines = plan("--gpu-name", "H100 80GB").splitlines()
    assert lines[0] == f"FITS on 8 x H100-80, TP=8 with expert parallelism, vLLM {version.installed() or version.PLANNED}"
    assert "tokens of KV cache" in lines[1]
    parts = ("Checkpoint: 237.57 GB", "weights", "KV cache", "What could be better", "MAX_NUM_SEQS=", "Weights are read by")
    places = [next(number for number, line in enumerate(lines) if line.strip().startswith(part)) for part in parts]
    assert places == sorted(places)
    assert max(map(len, lines)) <= 101


def test_the_whole_context_on_four_gpus_exits_with_4(plan: Any, value: Any) -> None:
    asked = ("--gpus", "4", "--gpu-name", "H100 80GB", "--set", "MAX_MODEL_LEN=262144")
    text = plan(*asked, code=ExitCode.PREFLIGHT)
    assert text.startswith("DOES NOT FIT on 4 x H100-80, TP=4")
    assert "ValueError: To serve at least one request with the model's max seq len (262144)" in " ".join(text.split())
    found = value(*asked, code=ExitCode.PREFLIGHT)
    assert (found["ok"], found["fits"], found["tensor_parallel"], found["expert_parallel"]) == (False, False, 4, False)
    assert {"KV_CACHE_DTYPE", "MAX_MODEL_LEN", "GPU_COUNT"} <= {advice["key"] for advice in found["advice"]}
    assert value("--gpus", "4", "--set", f"MAX_MODEL_LEN={found['largest_max_model_len']}")["fits"]


def test_the_numbers_of_the_public_log(value: Any) -> None:
    found = value("--vllm-version", "0.15.1", "--set", "MM_ENCODER_TP_MODE=weights", "--set", "MAX_MODEL_LEN=131072", "--gpu-name", "H100 80GB")
    assert found["per_rank"]["weights_bytes"] == pytest.approx(28.24 * GIB, rel=0.01)
    assert found["kv_tokens"] == pytest.approx(894_064, rel=0.01)
    assert found["vllm_version"] == "0.15.1"


def test_the_overhead_can_be_given(value: Any) -> None:
    found = value("--overhead-gib", "6", "--gpu-memory-gib", "80")
    assert found["kv_tokens"] == pytest.approx(809_504, rel=0.005)
    assert found["overhead"]["source"] == "given"
    assert found["per_rank"]["overhead_bytes"] == 6 * GIB


@pytest.mark.parametrize(
    ("asked", "name", "fits"),
    [
        (["--gpu-name", "A100 40GB"], "A100-40", True),
        (["--gpu-name", "L40S"], "L40S", True),
        (["--gpu-name", "H200", "--gpus", "4"], "H200-141", True),
        (["--gpu-name", "B200", "--gpus", "2"], "B200", True),
        (["--gpu-name", "H100", "--gpus", "2"], "H100-80", False),
        (["--gpu-name", "MI300", "--gpu-memory-gib", "192", "--gpus", "2"], "MI300 192 GiB", True),
        (["--gpu-memory-gib", "40"], "H100 40 GiB", True),
        (["--gpu-memory-gib", "24"], "H100 24 GiB", False),
    ],
)
def test_what_if_questions_need_no_gpu(value: Any, asked: list[str], name: str, fits: bool) -> None:
    found = value(*asked, code=ExitCode.DONE if fits else ExitCode.PREFLIGHT)
    assert (found["hardware"]["name"], found["fits"]) == (name, fits)


def test_a_set_value_wins_over_gpus(value: Any) -> None:
    found = value("--gpus", "8", "--set", "TENSOR_PARALLEL_SIZE=4")
    assert (found["tensor_parallel"], found["hardware"]["count"]) == (4, 8)


def test_the_cpu_engine(value: Any, plan: Any) -> None:
    found = value("--profile", "demo")
    assert (found["kv_tokens"], found["max_concurrency"]) == (524_288, 128.0)
    assert value("--profile", "demo", "--set", "TENSOR_PARALLEL_SIZE=2")["kv_tokens"] == 1_048_576
    assert plan("--profile", "demo").startswith("FITS on the CPU, TP=1")
    assert value("--gpus", "0", "--set", "MODEL_ID=demo", "--set", "EXPERT_PARALLEL=off")["hardware"]["name"] == "CPU"


def test_the_load_strategy_is_said_with_its_reason(value: Any, plan: Any) -> None:
    load_ = value("--no-probe")["load"]
    assert load_["strategy"] in ("lazy", "prefetch")
    assert load_["expert_filter"]
    assert load_["filesystem"] in load_["why"]
    assert load_["seconds_estimated"] is None  # there are no weights to probe
    assert "Weights are read by LOAD_STRATEGY=eager:\n  LOAD_STRATEGY says so" in plan("--set", "LOAD_STRATEGY=eager")


def test_the_time_to_load_comes_from_a_read_of_a_shard(home: Path, value: Any, plan: Any) -> None:
    from tests.weights.shards import make_checkpoint

    make_checkpoint(home / "model", 1)
    asked = ("--set", "MODEL_PATH=model", "--set", "MODEL_ID=some/model", "--gpus", "1", "--gpu-name", "H100", "--set", "EXPERT_PARALLEL=off", "--set", "MAX_MODEL_LEN=4096")
    found = value(*asked)
    assert found["facts_source"] == "headers"
    assert found["load"]["read_bytes_per_second"] > 0
    assert (found["load"]["seconds_estimated"] is None) is (found["load"]["read_from_cache"] is True)
    assert "of one shard" in plan(*asked)
    assert value(*asked, "--no-probe")["load"]["read_bytes_per_second"] is None


def test_another_models_config_is_enough(home: Path, value: Any) -> None:
    (home / "model").mkdir()
    (home / "model/config.json").write_text(json.dumps(CONFIG_30B))
    found = value("--set", "MODEL_PATH=model", "--set", "MODEL_ID=Qwen/Qwen3-30B-A3B-FP8", "--gpus", "1", "--gpu-name", "H100", "--set", "EXPERT_PARALLEL=off")
    assert found["per_rank"]["weights_bytes"] == pytest.approx(29.09 * GIB, rel=0.01)
    assert found["facts_source"] == "config"


def test_a_start_of_this_host_takes_the_place_of_the_assumption(home: Path, plan: Any, value: Any) -> None:
    paths = RunPaths(home)
    paths.run.mkdir()
    situation = Situation(load(profiles=["demo"]).settings, home / ".cache/demo-checkpoint", paths, {})
    situation.remember_start(EngineMemory(kv_cache_tokens=524_288, kv_cache_bytes_per_rank=GIB))
    assert value("--profile", "demo")["measured"]["kv_cache_tokens"] == 524_288
    assert value("--profile", "demo", "--set", "MAX_NUM_SEQS=2")["measured"] is None
    assert "the engine logged 524,288 tokens" in " ".join(plan("--profile", "demo").split())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--gpu-name", "RTX 4090"], "the cards known are A100-40"),
        (["--vllm-version", "newest"], "'newest' is no version such as 0.32.0"),
        (["--gpus", "65"], "--gpus"),
        (["--gpu-memory-gib", "0"], "--gpu-memory-gib"),
        (["--set", "VLLM_EXTRA_ARGS=--port 3"], "is set by PORT"),
    ],
)
def test_a_question_that_makes_no_sense_is_told(plan: Any, asked: list[str], said: str) -> None:
    assert said in plan(*asked, code=ExitCode.USAGE)


def test_a_model_nobody_knows_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--set", "MODEL_ID=some/model", "--json"]) == ExitCode.FAILED
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "no-model"
    assert "./download_model.sh" in error["fix"]
