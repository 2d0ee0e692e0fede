"""A program that behaves like ``vllm preload``: it takes its time, then each rank listens on its socket and answers as vLLM's does.

    python standin_cache.py FOLDER RANKS BEHAVIOUR.json TRACE

As vLLM's, its ranks are processes, and the first process goes on when one of them is gone. Each life and end is a line of the trace.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

FOLDER, RANKS, BEHAVIOUR, TRACE = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
LENGTH = struct.Struct("!Q")


def behaviour() -> dict[str, Any]:
    return json.loads(BEHAVIOUR.read_text())


def trace(words: str) -> None:
    with TRACE.open("a") as file:
        file.write(f"{words}\n")


def read(visitor: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = visitor.recv(count - len(found))
        if not part:
            raise ConnectionError
        found += part
    return found


def serve(rank: int) -> None:
    """One rank: bound when loaded, one visitor at a time."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = FOLDER / f"vllm_weight_cache_{rank:032}.sock"
    path.unlink(missing_ok=True)
    server.bind(str(path))
    server.listen()
    Path(f"/dev/shm/torch_{os.getpid()}_1_0").touch()  # as torch does for tensors that are shared
    while True:
        visitor, _ = server.accept()
        with visitor:
            try:
                question = pickle.loads(read(visitor, *LENGTH.unpack(read(visitor, LENGTH.size))))
            except ConnectionError:
                continue
            assert question == {"cmd": "get_memory"}
            answer = pickle.dumps({"status": "ok", "memory_bytes": 30 << 30})
            visitor.sendall(LENGTH.pack(len(answer)) + answer)


def main() -> None:
    told = behaviour()
    trace("cache begins")
    print("Loading safetensors checkpoint shards:  50% Completed | 12/24", flush=True)
    while behaviour().get("cache_loads"):
        time.sleep(0.02)
    if "cache_dies_with" in told:
        print(told["cache_dies_with"], flush=True)
        sys.exit(told.get("cache_exit_code", 1))
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    ranks = []
    for rank in range(RANKS):
        print(f"Weight cache target daemon rank {rank} loaded model (28.05 GiB allocated, 28.10 GiB reserved)", flush=True)
        pid = os.fork()
        if pid == 0:
            serve(rank)
        ranks.append(pid)

    def stop(number: int, frame: Any) -> None:
        for pid in ranks:
            os.kill(pid, signal.SIGTERM)
        for pid in ranks:
            os.waitpid(pid, 0)
        trace("cache ended")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    while True:
        signal.pause()


main()
