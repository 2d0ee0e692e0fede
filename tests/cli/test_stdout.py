"""What stdout leads to may be full, gone, or no terminal for odd names: never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QWEN = (sys.executable, "-m", "qwen_fp8_ops")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "QWEN_FP8_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    "words", [["--help"], ["status"], ["status", "--json"], ["plan", "--profile", "demo"], ["config"], ["config", "--json"], ["nonsense"]], ids=" ".join
)
def test_a_full_disk_is_told_on_stderr(home: dict[str, str], words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*QWEN, *words], env=home, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    if words == ["nonsense"]:
        assert (done.returncode, done.stderr.splitlines()[0][:6]) == (2, "Error:")
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("Error: The result cannot be printed: No space left on device\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_is_gone_is_no_failure(home: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run([*QWEN, "config"], env=home, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_tells_of_bytes_that_are_no_text(home: dict[str, str]) -> None:
    words = [os.fsencode(word) for word in (*QWEN, "plan", "--json", "--set")]
    done = subprocess.run([*words, b"MODEL_PATH=caf\xe9"], env=home, capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "MODEL_PATH=caf" in json.loads(done.stdout)["error"]["message"]
