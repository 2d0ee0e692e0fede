"""SLURM's commands, with programs of our own in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import slurm


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH: a machine may have SLURM itself."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> None:
    (folder / name).write_bytes(b"#!/bin/sh\n" + os.fsencode(text) + b"\n")
    (folder / name).chmod(mode)


def test_it_is_installed_where_its_command_is(commands: Path) -> None:
    assert not slurm.installed()
    script(commands, "scontrol", "")
    assert slurm.installed()


def test_a_reply_has_the_output_and_the_reason(commands: Path) -> None:
    script(commands, "squeue", 'echo "got $2"; echo "slurm_load_jobs error: Invalid job id" >&2; exit 1')
    reply = slurm.run(["squeue", "-j", "a b"])
    assert (reply.ok, reply.returncode, reply.stdout, reply.problem) == (False, 1, "got a b\n", "slurm_load_jobs error: Invalid job id")


def test_a_missing_command_is_a_reply(commands: Path) -> None:
    assert slurm.run(["sinfo"]) == slurm.Reply(None, "", "sinfo is not installed here")


def test_a_command_that_cannot_be_run_is_a_reply(commands: Path) -> None:
    script(commands, "squeue", "", mode=0o644)
    assert slurm.run([str(commands / "squeue")]).problem == f"{commands / 'squeue'} cannot be run: Permission denied"


def test_a_controller_that_is_silent_costs_the_limit_and_no_more(commands: Path) -> None:
    script(commands, "squeue", "exec /bin/sleep 600")
    assert slurm.run(["squeue"], timeout=0.3) == slurm.Reply(None, "", "squeue gave no answer in 0.3 s")


def test_bytes_that_are_no_text_are_a_reply(commands: Path) -> None:
    script(commands, "squeue", r"printf 'a\377b'")
    assert slurm.run(["squeue"]).stdout == "a\ufffdb"
