"""Secrets planted in every place that may hold one, then looked for in every place that others can read or that is sent to them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qwen_fp8_ops.engine.command import NOT_INHERITED
from tests.service.harness import StandInService

KEY = "canary-key-of-alice-4c1e"
SHELL = {
    "VLLM_API_KEY": "canary-vllm-9f31",
    "HF_TOKEN": "hf_canary-token-5e0d",
    "HUGGING_FACE_HUB_TOKEN": "hf_canary-old-token-77aa",
    "OPENAI_API_KEY": "canary-openai-22c7",
    "DATABASE_PASSWORD": "canary-password-8d70",
}
STAYS_WITH_US = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Of the shell's variables, those that no program of ours is given: they would open the engine, or are for downloads alone."""


@pytest.fixture
def canaries(service: StandInService, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every planted secret, and the key that a start makes for itself."""
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    keys = service.paths.home / "api_keys"
    keys.touch(mode=0o600)
    keys.write_text(f"alice:{KEY}\n")
    service.settings["API_KEYS_FILE"] = str(keys)
    service.started()
    own = service.paths.keys.read_text().strip().partition(":")[2]
    assert len(own) > 20
    return [KEY, own, *SHELL.values()]


def test_no_secret_leaves_its_place(service: StandInService, canaries: list[str], tmp_path: Path) -> None:
    assert service.process
    processes = [psutil.Process(pid) for pid in (service.process.pid, *service.living())]
    assert len(processes) >= 3
    for process in processes:
        assert found(canaries, " ".join(process.cmdline())) == [], process
    for process in processes[1:]:
        environ = process.environ()
        assert environ["QWEN_FP8_RUN"]
        inherited = [value for name, value in SHELL.items() if name not in STAYS_WITH_US]
        assert set(found(canaries, " ".join(environ.values()))) <= set(inherited), process
    bundle = tmp_path / "bundle.tar.gz"
    words = ["-m", "qwen_fp8_ops", "support-bundle", "--output", str(bundle), "--config", os.devnull]
    done = subprocess.run([sys.executable, *words], env={**os.environ, "QWEN_FP8_HOME": str(service.paths.home)}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert found(canaries, done.stdout + done.stderr) == []
    for name, text in members(bundle):
        assert found(canaries, text) == [], name
    service.behave(die_with="Error: this engine will not run", exit_code=1)
    os.kill(service.pid("engine0"), 9)
    service.wait_state("starting", "failed", "gave-up")
    assert found(canaries, str(service.status())) == []
    service.process.terminate()
    _, said = service.ended()
    assert found(canaries, said) == []
    looked_at = 0
    for path in service.paths.home.rglob("*"):
        if path.is_file() and path.name not in ("api_keys", service.paths.keys.name):
            looked_at += 1
            assert found(canaries, path.read_text(errors="replace")) == [], path
    assert looked_at > 5


def test_files_that_hold_or_name_secrets_are_for_their_owner_alone(service: StandInService, canaries: list[str]) -> None:
    for path in (service.paths.keys, service.paths.gate):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_what_stays_with_us_is_on_the_list() -> None:
    assert set(STAYS_WITH_US) <= set(NOT_INHERITED)


def found(canaries: list[str], text: str) -> list[str]:
    return [canary for canary in canaries if canary in text]


def members(bundle: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(bundle) as tar:
        files = [member for member in tar if member.isfile()]
        assert files
        for member in files:
            content = tar.extractfile(member)
            assert content
            yield member.name, content.read().decode(errors="replace")
