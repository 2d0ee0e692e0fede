"""``doctor`` and ``start --force``: what a user sees of the checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.preflight.checks import CODES
from qwen_fp8_ops.preflight.finding import Finding, forced
from qwen_fp8_ops.report.findings_text import render_findings
from tests.service.warm_service import WarmService

ROOT = Path(__file__).resolve().parents[2]
SPOILED = ("--profile", "demo", "--set", "WEIGHT_CACHE=on", "--set", "MAX_BODY_MB=2", "--set", "PORT=18971", "--set", "MEDIA_PORT=18972")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_the_text_reads_by_group_and_fits_80_columns(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", *SPOILED]) == ExitCode.PREFLIGHT
    lines = capsys.readouterr().out.splitlines()
    groups = [line for line in lines[:-3] if line and not line.startswith(" ")]
    assert groups == ["GPUs", "Host", "Engine", "Model", "Storage", "Network"]
    told = [" ".join(line.split()) for line in lines]
    failed = told.index("FAIL weight-cache WEIGHT_CACHE=on: there is no GPU (GPU_COUNT=0)")
    assert told[failed + 1] == "> Set WEIGHT_CACHE=off."
    assert any(line.startswith("warn body-limit MAX_BODY_MB=2 is less than a photo takes") for line in told)
    assert max(len(line) for line in lines if str(home) not in line) <= 80
    assert lines[-2].startswith("A start would be refused: 1 failed, 1 to be warned of, ")
    assert lines[-1].endswith("start --force CODE")


def test_a_command_to_paste_is_never_cut_in_two() -> None:
    command = "salloc -p gpu --job-name=qwen-vl-fp8 --gres=gpu:8 --mem=320G --cpus-per-task=32 --time=24:00:00"
    told = render_findings([Finding("gpu-count", "fail", "Requested 8 GPUs but only 0 available", f"{command}\nOr without a GPU: " + "word " * 30)], 80)
    lines = told.splitlines()
    assert f"       > {command}" in lines
    assert max(len(line) for line in lines if command not in line) <= 80


def test_all_well_is_said_in_one_line() -> None:
    assert render_findings([Finding("access", "pass", "fine")], 80).splitlines()[-1] == "A start would go ahead. 1 findings, all well."


def test_json_has_a_schema_a_verdict_and_findings_of_four_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json", *SPOILED]) == ExitCode.PREFLIGHT
    value = json.loads(capsys.readouterr().out)
    assert (value["schema"], value["verdict"], value["ok"]) == (1, "fail", False)
    assert all(list(finding) == ["code", "level", "seen", "fix"] for finding in value["findings"])
    assert {finding["code"] for finding in value["findings"]} <= set(CODES)
    assert {finding["level"] for finding in value["findings"]} == {"pass", "warn", "fail"}


def test_every_code_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--codes"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert all(f"  {code} " in text for code in CODES)
    assert max(map(len, text.splitlines())) <= 80
    assert run(["doctor", "--codes", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["codes"] == CODES


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_forcing_what_is_no_code_names_the_nearest(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--force", "gpu-modle", "--force", "disk", "--force", "zzz", "--force", "gpu-mig"]) == ExitCode.USAGE
    first, second, third, fix = capsys.readouterr().err.splitlines()
    assert first.startswith("Error: --force gpu-modle: no check has this code; did you mean gpu-model or ")
    assert second == "  --force disk: no check has this code; did you mean model-disk?"
    assert third == "  --force zzz: no check has this code; `qwen-fp8 doctor --codes` lists them"
    assert fix == f"  See `qwen-fp8 {verb} --help`."


def test_the_setting_of_a_port_is_no_code_but_near_to_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["start", "--json", "--force", "ENGINE_PORT"]) == ExitCode.USAGE
    assert "did you mean engine0-port" in json.loads(capsys.readouterr().out)["error"]["message"]


def refused(*words: str) -> list[str]:
    """What `qwen-fp8 start` says when it is refused."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": ""}
    done = subprocess.run([sys.executable, "-m", "qwen_fp8_ops", "start", *words], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == ExitCode.PREFLIGHT, done.stderr
    return done.stderr.splitlines()


def test_a_refused_start_names_what_would_override_it(home: Path) -> None:
    (home / "model").mkdir()
    words = ("--profile", "demo", "--set", "MODEL_ID=a/b", "--set", "MODEL_PATH=model", "--set", "WEIGHT_CACHE=on", "--set", "MEDIA_ROOT=nowhere")
    said = refused(*words)
    assert [line for line in said if line.startswith("Error: ")][-1] == f"Error: MEDIA_ROOT {home}/nowhere is missing"
    assert said[-1] == "  To start all the same: --force model-present --force weight-cache --force media-root"
    said = refused(*words, "--force", "weight-cache", "--force", "media-root")
    assert [line for line in said if line.startswith("Error: ")] == [f"Error: Model not found at {home}/model"]


def test_forcing_changes_failures_of_that_code_only() -> None:
    found = (Finding("gpu-mig", "fail", "MIG is on", "off"), Finding("gpu-ecc", "warn", "errors"), Finding("gpu-model", "fail", "other"))
    assert forced(found, ["gpu-mig", "gpu-ecc"]) == (Finding("gpu-mig", "warn", "MIG is on (forced: --force gpu-mig)", "off"), *found[1:])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WarmService]:
    stand_in = WarmService(tmp_path / "service")
    yield stand_in
    stand_in.close()


def begun(command: list[str]) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ)


def test_a_forced_start_goes_ahead_and_says_so(service: WarmService) -> None:
    command = service.command()
    service.process = begun(command[:-1])
    code, said = service.ended()
    assert (code, said.splitlines()[-1]) == (4, "Error: WEIGHT_CACHE=on: there is no GPU (GPU_COUNT=0)")
    service.process = begun(command)
    service.wait_state("ready")
    service.process.terminate()
    code, said = service.ended()
    assert code == 0
    assert "warning: WEIGHT_CACHE=on: there is no GPU (GPU_COUNT=0) (forced: --force weight-cache)\n  Set WEIGHT_CACHE=off.\n" in said
