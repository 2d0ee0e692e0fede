"""``qwen-fp8 config``: every value with its source, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "it's a \"home\""
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QWEN_FP8_HOME", str(folder))
    return folder


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: ExitCode = ExitCode.DONE) -> Any:
        assert run(["config", *arguments]) == code
        captured = capsys.readouterr()
        if "--json" in arguments:
            assert captured.err == ""
            return json.loads(captured.out)
        return captured.out if code is ExitCode.DONE else captured.err

    return call


def test_every_key_stands_in_the_text_within_80_columns(out: Any) -> None:
    lines = out("--profile", "demo").splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(OPTIONS)
    assert max(map(len, lines)) <= 80
    assert {line for line in lines if line and not line.startswith((" ", "profile:", "file:"))} == {row.group for row in OPTIONS.values()}


def test_a_value_and_its_source_stand_in_columns(out: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.env").write_text("\nPORT=8011\n")
    monkeypatch.setenv("QWEN_FP8_TOP_K", "5")
    lines = out("--profile", "fast", "--set", "GPU_NAME=", "--set", "MODEL_PATH=" + "x" * 100).splitlines()
    assert f"file:    {home / 'config.env'}" in lines
    sources = {line.split()[0]: line[2:].split(maxsplit=2)[1:] for line in lines if line.startswith("  ")}
    assert sources["PORT"] == ["8011", "config.env line 2"]
    assert sources["TOP_K"] == ["5", "QWEN_FP8_TOP_K"]
    assert sources["TEMPERATURE"] == ["0.3", "profile fast line 2"]
    assert sources["GPU_NAME"] == ["(empty)", "--set"]
    assert sources["HOST"] == ["127.0.0.1", "default"]
    assert sources["MODEL_PATH"] == ["x" * 100]
    columns = {line.index(origin) for line in lines for origin in ("default", "config.env line", "QWEN_FP8_TOP_K", "profile fast", "--set") if line.endswith(origin) or f"  {origin}" in line}
    assert len(columns - {0}) == 1


def test_json_gives_value_text_and_source(out: Any, home: Path) -> None:
    (home / "config.env").write_text("GPU_MEMORY_UTIL=0.90\nALLOWED_MEDIA_DOMAINS=a.example b.example\n")
    found = out("--json", "--profile", "demo", "--profile", "fast")
    assert {key: value for key, value in found.items() if key != "settings"} == {
        "schema": 1,
        "ok": True,
        "profile": "demo+fast",
        "config_file": str(home / "config.env"),
        "running": None,
    }
    assert list(found["settings"]) == list(OPTIONS)
    assert found["settings"]["GPU_MEMORY_UTIL"] == {"value": 0.9, "text": "0.90", "source": "config.env line 1"}
    assert found["settings"]["ALLOWED_MEDIA_DOMAINS"]["value"] == ["a.example", "b.example"]
    assert found["settings"]["ENFORCE_EAGER"]["value"] is True


def test_without_a_file_there_is_none_in_the_json(out: Any) -> None:
    assert out("--json")["config_file"] is None


def test_named_keys_are_explained_and_nothing_else_is_shown(out: Any) -> None:
    text = out("port", "TOP_K", "PORT")
    head = "PORT=8010  (default)\n  port of the OpenAI-compatible API; auto takes a free one, run/endpoint.json tells which\n"
    assert text.startswith(f"{head}  allowed: a port from 1 to 65535, or auto; default: 8010\n\nTOP_K=")
    assert list(out("PORT", "TOP_K", "--json")["settings"]) == ["PORT", "TOP_K"]


def test_changed_shows_only_what_differs_from_the_default(out: Any, home: Path) -> None:
    (home / "config.env").write_text("PORT=8010\nMAX_NUM_SEQS=9\nGPU_MEMORY_UTIL=0.9\n")
    assert list(out("--changed", "--json")["settings"]) == ["MAX_NUM_SEQS"]
    assert "MAX_NUM_SEQS" in out("--changed")
    assert "Nothing differs" in out("--changed", "PORT")


def test_unknown_keys_are_all_named_with_the_nearest(out: Any) -> None:
    text = out("PROT", "PORT", "GPU_MEMORY_UTILIZATION", code=ExitCode.USAGE)
    assert "Unknown key PROT; did you mean PORT?" in text
    assert "Unknown key GPU_MEMORY_UTILIZATION; did you mean GPU_MEMORY_UTIL" in text
    assert out("NOPE", "--json", code=ExitCode.USAGE)["error"]["code"] == "unknown-key"


def test_a_wrong_configuration_is_told_in_both_forms(out: Any, home: Path) -> None:
    (home / "config.env").write_text("PORT=x\nTOP_K=-1\n")
    text = out(code=ExitCode.USAGE)
    assert text.startswith("Error: The configuration has 2 errors")
    found = out("--json", code=ExitCode.USAGE)
    assert (found["ok"], found["error"]["code"]) == (False, "bad-configuration")
    assert "config.env line 2: TOP_K=-1" in found["error"]["message"]


def test_config_env_that_is_a_folder_is_told(out: Any, home: Path) -> None:
    (home / "config.env").mkdir()
    assert "config.env: cannot be read: Is a directory" in out(code=ExitCode.USAGE)


@pytest.mark.parametrize("words", ["--api-key sesame", "--api-key=sesame", "--hf-token sesame", "--api-key sesame 'open"])
def test_a_secret_in_the_extra_arguments_is_never_printed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--set", f"VLLM_EXTRA_ARGS={words}"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "sesame" not in captured.out + captured.err


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    script = 'cd "$1" && rmdir "$1" && exec "$2" -P -m qwen_fp8_ops config PORT'
    argv = ["bash", "-c", script, "bash", str(tmp_path / "gone"), sys.executable]
    (tmp_path / "gone").mkdir()
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 2
    assert "Error: The current folder is gone" in done.stderr
