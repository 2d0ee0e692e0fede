"""How the ranks of a weight cache are asked; that vLLM's own side understands it is tested with its loader (test_mapped_weights.py)."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.engine import weight_sockets
from qwen_fp8_ops.engine.weight_sockets import answers, problem

GOOD = pickle.dumps({"status": "ok", "memory_bytes": 30 << 30})


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a short name: a socket's path has 107 bytes at most."""
    monkeypatch.setattr(weight_sockets, "GLANCE_SECONDS", 0.3)
    monkeypatch.chdir(tmp_path_factory.mktemp("s"))
    return Path()


@pytest.fixture
def rank(folder: Path) -> Iterator[Callable[..., socket.socket]]:
    """Makes one that answers so to every visitor; None never answers."""
    opened: list[socket.socket] = []

    def make(number: int, reply: bytes | None = GOOD, *, backlog: int = 8) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(folder / f"vllm_weight_cache_{number}.sock"))
        server.listen(backlog)
        opened.append(server)

        def serve() -> None:
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                with visitor:
                    visitor.recv(4096)
                    visitor.sendall(reply or b"")

        if reply is not None:
            threading.Thread(target=serve, daemon=True).start()
        return server

    yield make
    for server in opened:
        server.close()


def framed(payload: bytes) -> bytes:
    return struct.pack("!Q", len(payload)) + payload


def test_all_is_well_when_every_rank_listens_and_answers(folder: Path, rank: Callable[..., socket.socket]) -> None:
    assert problem(folder, 2) == "0 of 2 ranks have their weights"
    rank(0, framed(GOOD))
    assert problem(folder, 2) == "1 of 2 ranks have their weights"
    rank(1, framed(GOOD))
    assert problem(folder, 2) == ""
    assert answers(folder, 5) == ""


def test_a_rank_that_is_gone_leaves_its_socket(folder: Path, rank: Callable[..., socket.socket]) -> None:
    rank(0, framed(GOOD))
    rank(1, None).close()
    assert problem(folder, 2) == "1 of 2 ranks do not listen any more"
    assert answers(folder, 5) == "vllm_weight_cache_1.sock does not answer: Connection refused"


def test_a_silent_rank_listens_and_does_not_answer(folder: Path, rank: Callable[..., socket.socket]) -> None:
    rank(0, None)
    assert problem(folder, 1) == ""
    with pytest.raises(TimeoutError):
        answers(folder, 0.3)


def test_a_rank_with_no_room_for_visitors_is_busy(folder: Path, rank: Callable[..., socket.socket]) -> None:
    rank(0, None, backlog=0)
    waiting = []
    for _ in range(3):
        visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        visitor.setblocking(False)
        try:
            visitor.connect(str(folder / "vllm_weight_cache_0.sock"))
        except BlockingIOError:
            break
        finally:
            waiting.append(visitor)
    assert problem(folder, 1) == ""
    with pytest.raises(TimeoutError):
        answers(folder, 0.3)
    for visitor in waiting:
        visitor.close()


@pytest.mark.parametrize("reply", [b"", b"\0\0", framed(GOOD)[:20]])
def test_a_rank_that_hangs_up_does_not_answer(folder: Path, rank: Callable[..., socket.socket], reply: bytes) -> None:
    rank(0, reply)
    assert answers(folder, 5) == "vllm_weight_cache_0.sock does not answer: it hung up"


def test_another_answer_is_none(folder: Path, rank: Callable[..., socket.socket]) -> None:
    rank(0, framed(pickle.dumps({"status": "error", "message": "Unknown command"})))
    assert answers(folder, 5) == "vllm_weight_cache_0.sock answers, but not what was asked"
