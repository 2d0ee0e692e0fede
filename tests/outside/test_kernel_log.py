"""The kernel's log through commands of our own: what a site's dmesg says, refuses, or never says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import kernel_log
from qwen_fp8_ops.outside.kernel_log import OUT_OF_MEMORY, XID, lines, read

LOG = """\
2026-11-21T10:00:00,000000+00:00 NVRM: Xid (PCI:0000:3b:00): 79, pid=4711, name=python, GPU has fallen off the bus.
2026-11-21T10:00:01,000000+00:00 EXT4-fs (vda): mounted filesystem
2026-11-21T10:00:02,000000+00:00 oom-kill:constraint=CONSTRAINT_MEMCG,task=VLLM::Worker_TP,pid=4712,uid=1000
2026-11-21T10:00:02,000000+00:00 Memory cgroup out of memory: Killed process 4712 (VLLM::Worker_TP) total-vm:9kB
2026-11-21T10:00:03,000000+00:00 zoom meeting starts
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def command(folder: Path, name: str, does: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{does}\n")
    (folder / name).chmod(0o755)


def says(text: str) -> str:
    return f"/bin/echo {shlex.quote(text.rstrip())}"


def test_lines_are_those_that_fit(folder: Path) -> None:
    command(folder, "dmesg", says(LOG))
    assert lines(XID) == LOG.splitlines()[:1]
    assert lines(OUT_OF_MEMORY) == LOG.splitlines()[2:4]
    assert lines("no such thing") == []
    assert read().problem == ""


def test_an_old_dmesg_has_no_stamps_to_choose(folder: Path) -> None:
    command(folder, "dmesg", f'[ $# = 0 ] || {{ echo "dmesg: unrecognized option" >&2; exit 1; }}\n{says("[ 1.5] NVRM: Xid 31")}')
    assert lines(XID) == ["[ 1.5] NVRM: Xid 31"]


def test_where_dmesg_is_refused_the_journal_is_asked(folder: Path) -> None:
    command(folder, "dmesg", 'echo "dmesg: read kernel buffer failed: Operation not permitted" >&2; exit 1')
    command(folder, "journalctl", says(LOG))
    assert len(lines(XID)) == 1


def test_a_log_that_nobody_shows_is_a_problem_in_words_and_no_lines(folder: Path) -> None:
    command(folder, "dmesg", 'echo "dmesg: read kernel buffer failed: Operation not permitted" >&2; exit 1')
    command(folder, "journalctl", "exit 0")
    found = read()
    assert (found.lines, lines(XID)) == ((), [])
    assert found.problem == "dmesg: read kernel buffer failed: Operation not permitted; journalctl shows nothing (exit code 0)"


def test_a_machine_without_the_commands() -> None:
    assert read().problem == "dmesg: No such file or directory; journalctl: No such file or directory"


def test_a_hanging_command_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "TIMEOUT_SECONDS", 0.2)
    command(folder, "dmesg", "exec /bin/sleep 600")
    assert read().problem.startswith("dmesg gave no answer in 0.2 s; journalctl: ")


def test_bytes_that_are_no_text_do_not_end_it(folder: Path) -> None:
    command(folder, "dmesg", r"printf 'NVRM: Xid \377\376 31\n'")
    assert lines(XID) == ["NVRM: Xid \ufffd\ufffd 31"]
