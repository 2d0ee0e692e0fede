"""No key is ever in a command line, in a plan or on a screen: every user of a node can read `ps`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.plan.launch import describe, make_plan

CANARIES = {"VLLM_API_KEY": "canary-vllm-9f31", "OPENAI_API_KEY": "canary-openai-22c7", "HF_TOKEN": "hf_canary-token-5e0d", "MY_PASSWORD": "canary-password-77"}
FILED = "canary-from-the-keys-file"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    keys = tmp_path / "api_keys"
    keys.write_text(f"alice:{FILED}\n")
    keys.chmod(0o600)
    (tmp_path / "config.env").write_text("API_KEYS_FILE=api_keys\nHOST=0.0.0.0\n")
    return tmp_path


def spoken(home: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "qwen_fp8_ops", *words, "--config", str(home / "config.env")],
        env={**os.environ, **CANARIES, "QWEN_FP8_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def assert_silent(text: str) -> None:
    assert "canary" not in text


@pytest.mark.parametrize("profile", ["h100x8", "demo"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_dry_run_shows_the_command_and_no_key(home: Path, profile: str, form: tuple[str, ...]) -> None:
    text = spoken(home, "start", "--dry-run", "--profile", profile, *form)
    assert "--served-model-name=qwen3-vl-fp8" in text
    assert_silent(text)
    if form:
        assert json.loads(text)["api_keys_file"] == str(home / "api_keys")


def test_a_plan_holds_no_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    plan = make_plan(load(config_file=home / "config.env", environ=os.environ), RunPaths(home))
    assert_silent(json.dumps(plan.as_json()))
    assert_silent(describe(plan))
    assert_silent(" ".join(word for program in plan.programs for word in program.argv))


def test_the_configuration_shows_the_file_and_no_key(home: Path) -> None:
    text = spoken(home, "config")
    assert "API_KEYS_FILE" in text
    assert_silent(text)
