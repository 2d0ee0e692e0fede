"""What a start logged becomes the next plan's overhead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.startup_log import EngineMemory, StartupLog
from qwen_fp8_ops.plan import calibration
from qwen_fp8_ops.plan.cards import GIB, described
from qwen_fp8_ops.plan.memory import memory_plan
from qwen_fp8_ops.plan.rank import rank_bytes
from qwen_fp8_ops.plan.situation import Situation
from qwen_fp8_ops.weights.facts import CARD_235B
from tests.plan.cases import MODERN, settings_of

H100 = described("H100", 80)
PUBLIC_LOG = (
    "(Worker_TP0_EP0 pid=1) INFO Model loading took 28.24 GiB memory and 118.0 seconds",
    "(Worker_TP0_EP0 pid=1) INFO Available KV cache memory: 40.07 GiB",
    "(EngineCore pid=2) INFO GPU KV cache size: 894,064 tokens, Maximum concurrency for 131,072 tokens per request: 6.82x",
    "(Worker_TP0_EP0 pid=1) INFO Graph capturing finished in 12 secs, took 0.83 GiB",
)


@pytest.fixture
def memory() -> EngineMemory:
    log = StartupLog()
    for line in PUBLIC_LOG:
        log.feed(line)
    return log.memory


def measured(memory: EngineMemory, **values: object) -> calibration.Measured:
    settings = settings_of(MM_ENCODER_TP_MODE="weights", MAX_MODEL_LEN=131072, **values)
    return calibration.measured_start(at="2026-01-02T03:04:05Z", host="node7", settings=settings, memory=memory, usable_bytes=H100.usable_bytes)


def test_the_plan_after_a_start_says_what_the_start_said(memory: EngineMemory) -> None:
    settings = settings_of(MM_ENCODER_TP_MODE="weights", MAX_MODEL_LEN=131072)
    overhead = calibration.overhead_of(measured(memory), rank_bytes(settings, CARD_235B))
    assert overhead is not None
    assert (overhead.source, "node7" in overhead.why) == ("measured", True)
    assert overhead.bytes / GIB == pytest.approx(71.26 - 40.07 - 28.05, abs=0.02)
    assert overhead.graphs_bytes == round(0.83 * GIB)
    plan = memory_plan(settings, CARD_235B, H100, MODERN, overhead)
    assert plan.fit.kv_tokens == pytest.approx(894_064, rel=2e-4)


def test_it_holds_for_another_length_and_another_share_too(memory: EngineMemory) -> None:
    settings = settings_of(MM_ENCODER_TP_MODE="weights", MAX_MODEL_LEN=32768, GPU_MEMORY_UTIL=0.95)
    overhead = calibration.overhead_of(measured(memory), rank_bytes(settings, CARD_235B))
    assert overhead is not None
    more = memory_plan(settings, CARD_235B, H100, MODERN, overhead).fit.kv_room_bytes
    assert more / GIB == pytest.approx(40.07 + 0.05 * 79.18, abs=0.02)


def test_what_was_written_is_read_and_the_last_start_counts(tmp_path: Path, memory: EngineMemory) -> None:
    path = tmp_path / "calibration.json"
    assert calibration.recall(path, "a") is None
    first, second = measured(memory), measured(replace(memory, kv_cache_tokens=5))
    calibration.remember(path, "a", first)
    calibration.remember(path, "b", first)
    calibration.remember(path, "a", second)
    assert (calibration.recall(path, "a"), calibration.recall(path, "b"), calibration.recall(path, "c")) == (second, first, None)
    assert json.loads(path.read_text())["schema"] == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 2, "entries": {}}', '{"schema": 1, "entries": {"a": {"x": 1}}}', '{"schema": 1, "entries": {"a": 3}}'])
def test_a_damaged_record_is_as_none_and_is_written_anew(tmp_path: Path, memory: EngineMemory, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    assert calibration.recall(path, "a") is None
    calibration.remember(path, "a", measured(memory))
    assert calibration.recall(path, "a") == measured(memory)


def test_the_record_does_not_grow_without_end(tmp_path: Path, memory: EngineMemory) -> None:
    path = tmp_path / "calibration.json"
    entry = json.loads(json.dumps(measured(memory).as_json()))
    path.write_text(json.dumps({"schema": 1, "entries": {f"{number}": entry for number in range(500)}}))
    calibration.remember(path, "new", measured(memory))
    assert len(json.loads(path.read_text())["entries"]) == calibration.MOST_ENTRIES
    assert calibration.recall(path, "new")
    assert calibration.recall(path, "499")
    assert calibration.recall(path, "0") is None


def test_a_start_that_left_less_than_the_weights_tells_nothing(memory: EngineMemory) -> None:
    rank = rank_bytes(settings_of(), CARD_235B)
    assert calibration.overhead_of(measured(replace(memory, kv_cache_bytes_per_rank=70 * GIB)), rank) is None
    assert calibration.overhead_of(measured(replace(memory, kv_cache_bytes_per_rank=None)), rank) is None


def key(**values: object) -> str:
    return calibration.key_of("node7", Path("/models/x"), settings_of(**values), MODERN)


@pytest.mark.parametrize("change", [{"TENSOR_PARALLEL_SIZE": 4}, {"EXPERT_PARALLEL": "off"}, {"MAX_NUM_SEQS": 8}, {"ENFORCE_EAGER": "on"}, {"MAX_NUM_BATCHED_TOKENS": 4096}, {"MAX_IMAGES": 1}])
def test_another_layout_is_another_entry(change: dict[str, object]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize("change", [{"MAX_MODEL_LEN": 65536}, {"GPU_MEMORY_UTIL": 0.8}, {"KV_CACHE_DTYPE": "fp8"}, {"PORT": 9000}])
def test_what_only_the_cache_feels_is_not(change: dict[str, object]) -> None:
    assert key(**change) == key()


def test_another_host_model_or_engine_is_another_entry() -> None:
    settings = settings_of()
    keys = {calibration.key_of(host, Path(model), settings, version) for host in ("a", "b") for model in ("/m", "/n") for version in ("0.32.0", "0.33.0")}
    assert len(keys) == 8


def test_a_start_on_the_cpu_is_remembered_and_shown_and_is_no_overhead(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.run.mkdir()
    situation = Situation(load(profiles=["demo"]).settings, tmp_path / "model", paths, {})
    situation.remember_start(EngineMemory())
    assert not paths.calibration.exists()
    situation.remember_start(EngineMemory(kv_cache_tokens=524_288, kv_cache_bytes_per_rank=GIB, max_concurrency=128.0))
    found = situation.measured(situation.vllm_version())
    assert found is not None
    assert (found.kv_cache_tokens, found.budget_bytes) == (524_288, None)
    assert situation.memory_plan().overhead.bytes == 0
