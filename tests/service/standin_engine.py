"""A program that behaves like the engine's outside: it takes its time, answers health, the gate's status, metrics and chats, has a
worker child, and dies, hangs or freezes as it is told. For what the supervisor does about programs; the real engine has tests of its own.

    python standin_engine.py PORT BEHAVIOUR.json [TRACE [SOCKETS]]

The behaviour file is read at every request, so that a test can change its mind. With SOCKETS it maps its weights from a cache that
listens there, as ``--load-format ipc_cache`` has vLLM's do.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEHAVIOUR = Path(sys.argv[2])
IN_FLIGHT: list[Any] = []
PROBES: list[Any] = []
BEGAN = time.monotonic()
ANSWERED: list[Any] = []
READINGS: list[bool] = []
LAST: list[str] = []


def behaviour() -> dict[str, Any]:
    return json.loads(BEHAVIOUR.read_text())


def draining() -> bool:
    return json.loads(Path(os.environ["QWEN_FP8_GATE"]).read_text())["draining"]


def metrics() -> str:
    """Answered also while the loop is frozen, as by vLLM, with the numbers of its last turn. A long prompt moves nothing but the KV cache."""
    if behaviour().get("frozen") and LAST and IN_FLIGHT + PROBES:
        return LAST[-1]
    READINGS.append(bool(behaviour().get("long_prompt")))
    numbers = {
        "num_requests_running": len(IN_FLIGHT) + len(PROBES),
        "kv_cache_usage_perc": sum(READINGS) / 10_000,
        "prompt_tokens_total": 9 * len(ANSWERED),
        "generation_tokens_total": len(ANSWERED),
    }
    LAST[:] = ["".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in numbers.items())]
    return LAST[-1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        while behaviour().get("hang"):
            time.sleep(0.05)
        if self.path == "/health":
            self.answer(200 if time.monotonic() - BEGAN >= behaviour().get("ready_after", 0) else 503, {})
        elif self.path == "/service":
            self.answer(200, {"gate": {"pid": os.getpid(), "draining": draining(), "in_flight": len(IN_FLIGHT)}, "readings": len(READINGS)})
        elif self.path == "/metrics":
            self.answer(200, metrics())
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        if draining():
            self.answer(503, {})
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = behaviour()
        if told.get("no_pictures") and isinstance(body["messages"][0]["content"], list):
            self.answer(400, {"error": {"message": "cannot fetch it"}})
            return
        load = PROBES if "X-Service-Probe" in self.headers else IN_FLIGHT
        load.append(body)
        time.sleep(body.get("seconds", 0))
        while behaviour().get("frozen") or behaviour().get("long_prompt"):
            time.sleep(0.05)
        load.remove(body)
        ANSWERED.append(body)
        self.answer(200, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})

    def answer(self, status: int, value: Any) -> None:
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


def trace(words: str) -> None:
    if len(sys.argv) > 3:
        with Path(sys.argv[3]).open("a") as file:
            file.write(f"{words}\n")


def map_weights() -> None:
    sockets = sorted(Path(sys.argv[4]).glob("*.sock"))
    try:
        for path in sockets:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
                visitor.connect(str(path))
    except OSError as error:
        sys.exit(f"vllm.model_executor.model_loader.weight_cache.protocol.WeightCacheUnavailableError: Cannot connect to weight cache daemon at {path}: {error}")
    if not sockets or "cannot_map" in behaviour():
        sys.exit("vllm.model_executor.model_loader.weight_cache.protocol.CacheConfigMismatchError: WeightCacheKey mismatch on fields: ['vllm_version']")


def main() -> None:
    told = behaviour()
    trace(f"engine begins {'with mapped' if len(sys.argv) > 4 else 'to read its'} weights")
    if len(sys.argv) > 4:
        map_weights()
    if "die_with" in told:
        print(told["die_with"], flush=True)
        sys.exit(told.get("exit_code", 1))
    if told.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(1)"])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True

    def stop(number: int, frame: Any) -> None:
        worker.terminate()
        threading.Thread(target=server.shutdown).start()

    if not told.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, stop)
    if told.get("first_thread_ends"):
        threading.Thread(target=server.serve_forever).start()
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # SYS_exit: of this thread alone
    server.serve_forever(poll_interval=0.02)
    worker.wait()
    trace("engine ended")


main()
