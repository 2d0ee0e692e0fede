"""The weights as a start sees them: what would stop an engine stops the start, the rest is a warning."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.preflight.checks import Subject
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.weights import check_weights
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.manifest import Manifest, ManifestFile
from tests.weights.shards import make_checkpoint

SHARDS = 5


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path / "model", SHARDS)
    return tmp_path / "model"


def found(model: Path, model_id: str = "stand/in") -> list[Finding]:
    paths = RunPaths(model.parent)
    plan = make_plan(load(profiles=["demo"], overrides=[f"MODEL_ID={model_id}", f"MODEL_PATH={model}"]), paths)
    return list(check_weights(Subject(plan, paths, {})))


def shard(model: Path, number: int) -> Path:
    return model / f"model-{number:05}-of-{SHARDS:05}.safetensors"


def test_whole_weights_pass(model: Path) -> None:
    (finding,) = found(model)
    assert (finding.code, finding.level) == ("weights-verified", "pass")
    assert finding.seen.startswith("12 files, ")


def test_broken_weights_stop_the_start_with_one_remedy(model: Path) -> None:
    for number in range(1, SHARDS + 1):
        os.truncate(shard(model, number), 2000)
    (finding,) = found(model)
    assert finding.level == "fail"
    assert finding.seen.startswith(f"The weights in {model} are not whole: {shard(model, 1).name} is cut short")
    assert finding.seen.endswith("; and 2 more")
    assert finding.fix == "qwen-fp8 verify --repair"


def test_what_no_engine_minds_is_a_warning(model: Path) -> None:
    files = [ManifestFile(path.name, path.stat().st_size, "0" * 64, path.stat().st_mtime_ns) for path in model.iterdir()]
    manifest.write(model, Manifest("owner/name", "a" * 40, "main", (*files, ManifestFile("README.md", 1, "0" * 64, 1)), True))
    os.utime(shard(model, 2), ns=(1, 1))
    shutil.copyfile(shard(model, 1), model / "old.safetensors")
    (finding,) = found(model)
    assert finding.level == "warn"
    assert [part.split()[0] for part in finding.seen.partition(": ")[2].split("; ")] == ["README.md", shard(model, 2).name, "old.safetensors"]
    assert finding.fix == "qwen-fp8 verify --repair\nqwen-fp8 verify"


def test_a_model_that_is_not_there_is_another_checks_matter(tmp_path: Path) -> None:
    assert found(tmp_path / "nowhere") == []


def test_a_demo_that_will_be_made_anew_is_not_looked_at(model: Path) -> None:
    assert found(model, "demo") == []
