"""The memory plan as a check of a start: what would not fit is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.preflight.checks import Subject
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.memory import check_memory


def findings(home: Path, *profiles: str, **settings: Any) -> list[Finding]:
    paths = RunPaths(home)
    texts = [f"{key}={value}" for key, value in settings.items()]
    return list(check_memory(Subject(make_plan(load(profiles=profiles, overrides=texts), paths), paths, {})))


def test_what_fits_says_with_how_much(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, "demo")
    assert (found.code, found.level) == ("memory-plan", "pass")
    assert "524,288 tokens of KV cache: 128.0 requests of 4,096" in found.seen


def test_without_a_driver_the_configured_cards_count(tmp_path: Path) -> None:
    (found,) = findings(tmp_path)
    assert found.level == "pass"
    assert "(H100-80, overhead assumed)" in found.seen
    (small,) = findings(tmp_path, GPU_NAME="H100", GPU_MEMORY_GIB=24)
    assert small.level == "fail"


def test_what_does_not_fit_is_refused_with_the_engines_words_and_what_to_change(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, "h100x4", MAX_MODEL_LEN=262144, GPU_MEMORY_UTIL=0.9)
    assert found.level == "fail"
    assert "ValueError: To serve at least one request with the model's max seq len (262144)" in found.seen
    assert "Set KV_CACHE_DTYPE=fp8: then it starts" in found.fix
    assert found.fix.endswith("qwen-fp8 plan")


def test_a_model_that_is_not_there_is_told_by_another_check(tmp_path: Path) -> None:
    assert findings(tmp_path, MODEL_ID="some/model") == []


def test_a_model_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (found,) = findings(tmp_path, "demo", MODEL_ID="some/model", MODEL_PATH="model")
    assert found.level == "warn"
    assert found.seen.startswith("No memory plan can be made: ")


def test_doctor_exits_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path))
    assert run(["doctor", "--json", "--profile", "demo", "--set", "CPU_KV_CACHE_GIB=1024"]) == ExitCode.PREFLIGHT
    value = json.loads(capsys.readouterr().out)
    (found,) = [finding for finding in value["findings"] if finding["code"] == "memory-plan"]
    assert found["level"] == "fail"
    assert "is less than requested memory for kv (1024.0 GiB)" in found["seen"]
