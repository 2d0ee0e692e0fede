"""What counts as a request that still runs, while an engine answers, drains by itself, or hangs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service import drain
from qwen_fp8_ops.service.child import Child
from tests.ports import free_port


class Running(Child):
    @property
    def running(self) -> bool:
        return True


def engine(tmp_path: Path, port: int, kind: type[Child] = Running) -> Child:
    plan = make_plan(load(profiles=["demo"], overrides=[f"PORT={port}"]), RunPaths(tmp_path))
    return kind(plan.engines[0])


@contextmanager
def answering(value: Any) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("told", "running"),
    [
        ({"gate": {"draining": True, "in_flight": 3}}, 3),
        ({"gate": {"draining": True, "in_flight": 0}}, 0),
        ({"gate": {"draining": False, "in_flight": 0}}, 1),
        ({"error": "?"}, 0),
        ([], 0),
    ],
)
def test_the_gate_tells(tmp_path: Path, told: Any, running: int) -> None:
    with answering(told) as port:
        assert drain.requests_running([engine(tmp_path, port)], "key") == running


def test_an_engine_that_closed_its_door_is_still_at_work(tmp_path: Path) -> None:
    port = free_port()
    assert drain.requests_running([engine(tmp_path, port)], "key") == 1
    assert drain.requests_running([engine(tmp_path, port, Child)], "key") == 0, "it has ended"


def test_a_hung_engine_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "ASK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert drain.requests_running([engine(tmp_path, silent.getsockname()[1])], "key") == 0
