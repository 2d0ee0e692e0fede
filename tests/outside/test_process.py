"""Processes of this host: real ones that live, die, hang on and leave children behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_fp8_ops.outside import net, process
from qwen_fp8_ops.outside.process import Identity
from tests.ports import free_port
from tests.waiting import wait_for

SLEEPER = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]

LEADER = """
import os, subprocess, sys
# The leader of a session of its own: two children that outlive it, one of them in a process group of its own, told by pid.
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=group) for group in (None, 0)]
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
os._exit(0)
"""

HALF_DEAD = """
import ctypes, platform, socket, sys, threading
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
up = threading.Event()
def serve():
    up.set()
    sys.stdin.read()
threading.Thread(target=serve).start()
up.wait()
print("up", flush=True)
number = {"x86_64": 60, "aarch64": 93}[platform.machine()]
ctypes.CDLL(None).syscall(number, 0)  # SYS_exit: this thread ends, and no other
"""


@contextmanager
def sleeper(argv: list[str] | None = None, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process that ends when its stdin is closed, at the latest at the end of the block."""
    with subprocess.Popen(argv or SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def session() -> Iterator[tuple[subprocess.Popen[str], Identity, list[int]]]:
    """A leader with two children in its session."""
    with sleeper([sys.executable, "-c", LEADER], start_new_session=True) as leader:
        assert leader.stdout
        children = [int(word) for word in leader.stdout.readline().split()]
        identity = process.identify(leader.pid)
        assert identity
        try:
            yield leader, identity, children
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)


def state_of(pid: int) -> str:
    """As ps shows it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_is_itself_while_it_lives_and_nobody_after() -> None:
    with sleeper() as running:
        me = process.identify(running.pid, "4711")
        assert me
        assert (me.here, me.alive, me.job_id) == (True, True, "4711")
    assert (me.here, me.alive) == (True, False)
    assert process.identify(running.pid) is None


def test_a_zombie_is_not_alive() -> None:
    with sleeper() as running:
        me = process.identify(running.pid)
        assert me
        assert running.stdin
        running.stdin.close()
        # WNOWAIT: it has ended and nobody has reaped it.
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        assert os.path.exists(f"/proc/{running.pid}")
        assert not me.alive
        assert process.session_members(me) == []
        assert not process.send(me, signal.SIGTERM)
        assert running.pid not in process.children_of(os.getpid())


def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    """A tree that was killed goes thread by thread. Until the last one has unwound, its sockets and its GPU memory are held."""
    port = free_port()
    with sleeper([sys.executable, "-c", HALF_DEAD, str(port)], start_new_session=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "up\n"
        wait_for(lambda: state_of(running.pid) == "Z", "its first thread has ended")
        me = process.identify(running.pid)
        assert me
        assert me.alive
        assert process.session_members(me) == [me]
        assert running.pid in process.children_of(os.getpid())
        assert not net.can_bind("127.0.0.1", port)
        assert process.send(me, signal.SIGKILL)
        wait_for(lambda: not me.alive, "it is gone")
        assert net.can_bind("127.0.0.1", port)
        assert state_of(running.pid) == "Z", "nobody has reaped it yet"
        assert process.session_members(me) == []
        assert running.pid not in process.children_of(os.getpid())


@pytest.mark.parametrize("other", [{"start_ticks": 1}, {"boot_id": "another-boot"}, {"host": "another-host"}, {"pid": 2**22 + 1}])
def test_a_pid_alone_names_nobody(other: dict[str, object]) -> None:
    me = process.identify(os.getpid())
    assert me
    assert me.alive
    stranger = replace(me, **other)  # type: ignore[arg-type]
    assert not stranger.alive
    assert not process.send(stranger, signal.SIGKILL)
    assert process.session_members(stranger) == []


def test_members_of_a_session_are_found_while_its_leader_lives_and_after() -> None:
    with session() as (leader, identity, children):
        assert {member.pid for member in process.session_members(identity)} == {leader.pid, *children}
        assert set(children) <= set(process.children_of(leader.pid))
        leader.kill()
        leader.wait()
        left = process.session_members(identity)
        assert {member.pid for member in left} == set(children)
        assert not identity.alive
        assert process.send(left[0], signal.SIGKILL)
        wait_for(lambda: not left[0].alive, "the first member is gone")
        assert [member.pid for member in process.session_members(identity)] == [left[1].pid]


def test_a_session_is_not_taken_for_one_of_an_older_process_of_that_pid() -> None:
    with session() as (_, identity, _children):
        older = replace(identity, start_ticks=identity.start_ticks - 1)
        assert process.session_members(older) == []


def test_a_signal_reaches_exactly_that_process() -> None:
    with sleeper() as running:
        me = process.identify(running.pid)
        assert me
        assert process.send(me, signal.SIGTERM)
        assert running.wait() == -signal.SIGTERM
        assert not process.send(me, signal.SIGTERM)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["exit 0"], "exit code 0"),
        (["exit 3"], "exit code 3"),
        (["kill -TERM $$"], "killed by SIGTERM"),
        (["kill -KILL $$"], "killed by SIGKILL (by hand, or by the kernel for want of memory)"),
        (["kill -SEGV $$"], "killed by SIGSEGV"),
        (["kill -40 $$"], "killed by signal 40"),
    ],
)
def test_an_end_in_words(argv: list[str], words: str) -> None:
    done = subprocess.run(["/bin/sh", "-c", f"ulimit -c 0; {argv[0]}"])
    assert process.exit_in_words(done.returncode) == words


def test_what_proc_tells_of_a_living_process() -> None:
    with sleeper([sys.executable, "-c", SLEEPER[2], "an argument", ""], env={"QWEN_FP8_RUN": "/srv/a run", "PATH": "/bin"}) as running:
        assert running.stdout
        assert running.stdout.readline() == "up\n"
        assert process.command_line(running.pid).endswith(" an argument")
        assert b"QWEN_FP8_RUN=/srv/a run\0" in process.environment_of(running.pid)
        resident = process.resident_bytes(running.pid)
        assert resident
        assert resident > 1 << 20
        assert running.pid in process.all_pids()
    gone = running.pid
    assert (process.command_line(gone), process.environment_of(gone), process.resident_bytes(gone)) == ("", b"", None)


def test_a_command_with_a_bracket_in_its_name_is_read() -> None:
    program = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'x) R 1 (y', 0, 0, 0); print('up', flush=True); sys.stdin.read()"
    with sleeper([sys.executable, "-c", program]) as running:
        assert running.stdout
        assert running.stdout.readline() == "up\n"
        me = process.identify(running.pid)
        assert me
        assert me.alive
        assert running.pid in process.children_of(os.getpid())


def test_a_subreaper_gets_the_orphans_of_its_children() -> None:
    program = """
import os, subprocess, sys
from qwen_fp8_ops.outside import process
process.become_subreaper()
parent = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()']).pid, flush=True)"
child = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
orphan = int(child.stdout.readline())
child.wait()
print(process.children_of(os.getpid()) == [orphan])
child.stdin.close()
os.waitpid(orphan, 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_an_identity_survives_json() -> None:
    me = process.identify(os.getpid(), "77")
    assert me
    assert Identity.from_json(me.as_json()) == me


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@example({"host": "node", "boot_id": "boot", "pid": float("inf"), "start_ticks": 1})
@given(json_values | st.fixed_dictionaries({}, optional=dict.fromkeys(("host", "boot_id", "pid", "start_ticks", "job_id"), json_values)))
def test_a_damaged_identity_is_none_or_not_alive(value: object) -> None:
    found = Identity.from_json(value)
    assert found is None or not found.alive
