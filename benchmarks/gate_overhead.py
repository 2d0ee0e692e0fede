"""What the gate costs: requests a second and median latency with and without it, both sides in one run, in turns.

    python benchmarks/gate_overhead.py                      a trivial ASGI app under uvicorn, plain and behind the gate
    python benchmarks/gate_overhead.py --engine-url-plain http://127.0.0.1:8011 --engine-url-gated http://127.0.0.1:8010

The second form measures two running engines of this machine (completions of one token), one at a time while the other is held;
GATE_BENCHMARK_KEY holds the key for the gated one.
Targets: at most 0.2 ms added to the median on the trivial app, at most 1 % on the engine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qwen_fp8_ops.gate.config import GATE_VARIABLE, GateConfig

KEY = "benchmark-key-1"
CHUNKS = 200
ANSWER = json.dumps({"id": "x", "choices": [{"message": {"content": "hello " * 40}}], "usage": {"prompt_tokens": 9, "completion_tokens": 40}}).encode()
CHAT = {"model": "m", "messages": [{"role": "user", "content": "What is in this picture? " * 20}]}


async def trivial_app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers at once; with ?stream in CHUNKS pieces of 100 bytes."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"].split(".")[1]
            await send({"type": f"lifespan.{kind}.complete"})
            if kind == "shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    if scope["query_string"] == b"stream":
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream"), (b"content-length", b"%d" % (CHUNKS * 100))]}
        )
        for number in range(CHUNKS):
            await send({"type": "http.response.body", "body": b"x" * 100, "more_body": number < CHUNKS - 1})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]})
    await send({"type": "http.response.body", "body": ANSWER})


def serve(descriptor: int, gated: bool) -> None:
    import uvicorn

    app: Any = trivial_app
    if gated:
        from qwen_fp8_ops.gate import Gate

        app = Gate(trivial_app)
    # Not uvicorn's own `fd`: it takes every descriptor for a Unix socket, and TCP_NODELAY is then not set.
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=600)).run(sockets=[socket.socket(fileno=descriptor)])


@contextmanager
def trivial_server(gated: bool, folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(listener.fileno()), *(["--gated"] if gated else [])]
        environment = {**os.environ, GATE_VARIABLE: str(folder / "gate.json")}
        child = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(timeout=10)


class Caller:
    """One kept-alive connection that sends the same request again and again, with as little work as a client can do."""

    def __init__(self, url: str, path: str, body: bytes, key: str) -> None:
        parts = urlsplit(url)
        head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self) -> float:
        """Seconds until the answer was there in full.

        Raises:
            RuntimeError: it was not a 200.
        """
        begun = time.perf_counter()
        self._socket.sendall(self._request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:500].decode(errors="replace"))
        missing = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) - len(body)
        while missing > 0:
            missing -= len(self._receive())
        return time.perf_counter() - begun

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise RuntimeError("the server closed the connection")
        return data

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Figure:
    """Medians over the rounds; ``added_ms`` and ``ratio`` are the gated side against the plain one, round by round."""

    what: str
    unit: str
    plain: float
    gated: float
    ratio: float
    added_ms: float | None


Make = Callable[[str], Caller]


def latency(urls: tuple[str, str], make: Make, rounds: int, requests: int, what: str) -> Figure:
    """Median latency in ms of sequential requests, one side after the other: what disturbs the machine disturbs both."""
    callers = [make(url) for url in urls]
    for _ in range(min(requests, 50)):
        for caller in callers:
            caller()
    plain: list[float] = []
    gated: list[float] = []
    for _ in range(rounds):
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(requests):
            for side in (0, 1) if number % 2 else (1, 0):
                seconds[side].append(callers[side]())
        plain.append(median(seconds[0]) * 1000)
        gated.append(median(seconds[1]) * 1000)
    for caller in callers:
        caller.close()
    return compared(what, "ms", plain, gated)


def throughput(urls: tuple[str, str], make: Make, rounds: int, requests: int, concurrent: int, what: str) -> Figure:
    """Requests a second over ``concurrent`` connections, the two sides in turns."""
    plain: list[float] = []
    gated: list[float] = []
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            (plain, gated)[side].append(requests / together(urls[side], make, requests, concurrent))
    return compared(what, "req/s", plain, gated)


def together(url: str, make: Make, requests: int, concurrent: int) -> float:
    """Seconds for all of ``requests``, shared out evenly."""
    callers = [make(url) for _ in range(concurrent)]
    problems: list[BaseException] = []
    gate = threading.Barrier(concurrent + 1)

    def work(caller: Caller) -> None:
        try:
            gate.wait(timeout=60)
            for _ in range(requests // concurrent):
                caller()
        except (RuntimeError, OSError) as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    gate.wait(timeout=60)
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    for caller in callers:
        caller.close()
    if problems:
        raise problems[0]
    return seconds


def chat_caller(url: str) -> Caller:
    return Caller(url, "/v1/chat/completions", json.dumps(CHAT).encode(), KEY)


def stream_caller(url: str) -> Caller:
    return Caller(url, "/v1/chat/completions?stream", json.dumps(CHAT).encode(), KEY)


def trivial(rounds: int, requests: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = folder / "keys"
        keys.touch(mode=0o600)
        keys.write_text("".join(f"user{number}:benchmark-key-{number}\n" for number in range(5)))
        config = GateConfig(
            max_body_bytes=1 << 28, audit=str(folder / "audit.jsonl"), state=str(folder / "state.json"), keys_files=(str(keys),), keys_required=True,
            rate_limit_per_minute=1_000_000, default_max_tokens=8192, ends_at="2030-01-01T00:00:00Z",
        )  # fmt: skip
        (folder / "gate.json").write_text(json.dumps(config.as_json()))
        with trivial_server(False, folder) as plain, trivial_server(True, folder) as gated:
            urls = (plain, gated)
            return [
                latency(urls, chat_caller, rounds, requests, "trivial app, latency p50"),
                latency(urls, stream_caller, rounds, requests // 4, f"trivial app, stream of {CHUNKS} chunks p50"),
                throughput(urls, chat_caller, rounds, requests * 4, 8, "trivial app, 8 connections"),
            ]


def engines(plain: str, gated: str, rounds: int, requests: int, concurrent: int) -> list[Figure]:
    urls = (plain, gated)
    key = os.environ.get("GATE_BENCHMARK_KEY", "")
    model = served_model(gated, key)
    body = json.dumps({"model": model, "prompt": "One token, please.", "max_tokens": 1, "temperature": 0}).encode()

    def caller(url: str) -> Caller:
        return Caller(url, "/v1/completions", body, key)

    latencies: tuple[list[float], list[float]] = ([], [])
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            with alone(urls[1 - side]):
                one = caller(urls[side])
                for _ in range(10):
                    one()
                latencies[side].append(median(one() for _ in range(requests)) * 1000)
                one.close()
                rates[side].append(requests / together(urls[side], caller, requests, concurrent))
    return [compared("engine, 1 token, latency p50", "ms", *latencies), compared(f"engine, 1 token, {concurrent} connections", "req/s", *rates)]


def compared(what: str, unit: str, plain: list[float], gated: list[float]) -> Figure:
    pairs = list(zip(plain, gated, strict=True))
    added = median(b - a for a, b in pairs) if unit == "ms" else None
    return Figure(what, unit, median(plain), median(gated), median(b / a for a, b in pairs), added)


@contextmanager
def alone(other: str) -> Iterator[None]:
    """Hold the other engine's processes meanwhile: on a CPU its threads go on turning for a while after each answer."""
    port = urlsplit(other).port
    listener = next(found.pid for found in psutil.net_connections("tcp") if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN and found.pid)
    server = psutil.Process(listener)
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def served_model(url: str, key: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=30)
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
    name = json.loads(connection.getresponse().read())["data"][0]["id"]
    connection.close()
    return str(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=400, help="for each side in each round")
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--engine-url-plain")
    parser.add_argument("--engine-url-gated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--gated", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve, chosen.gated)
        return
    if chosen.engine_url_plain and chosen.engine_url_gated:
        figures = engines(chosen.engine_url_plain, chosen.engine_url_gated, chosen.rounds, chosen.requests, chosen.concurrent)
    else:
        figures = trivial(chosen.rounds, chosen.requests)
    if chosen.json:
        print(json.dumps({"schema": 1, "figures": [asdict(figure) for figure in figures]}, indent=1))
        return
    for figure in figures:
        added = f"  {figure.added_ms:+.3f} ms" if figure.added_ms is not None else ""
        print(f"{figure.what:45} plain {figure.plain:10.3f} {figure.unit:5}  gated {figure.gated:10.3f} {figure.unit:5}  ratio {figure.ratio:.3f}{added}")


if __name__ == "__main__":
    main()
