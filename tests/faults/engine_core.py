"""The core of ``engine.py``: takes its time to load, then answers each line with as many lines as were asked for.

    python engine_core.py BEHAVIOUR.json

The worker is there to be found and ended. The shared memory is made as vLLM makes its message rings, the socket as it makes its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from multiprocessing import shared_memory
from pathlib import Path

WRITING = threading.Lock()


def say(value: object) -> None:
    with WRITING:
        os.write(1, json.dumps(value).encode() + b"\n")


def work(asked: dict[str, float]) -> None:
    for piece in range(int(asked["pieces"])):
        time.sleep(asked["seconds"] / asked["pieces"])
        say({"number": asked["number"], "piece": piece})


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    ring = shared_memory.SharedMemory(create=True, size=1 << 20)
    ring.buf[0] = 1  # mapped, and in use
    worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with socket.socket(socket.AF_UNIX) as server:
        path = f"{tempfile.gettempdir()}/{uuid.uuid4()}"
        server.bind(path)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        try:
            print("Starting to load model stand-in...", file=sys.stderr, flush=True)
            time.sleep(told.get("ready_after", 0))
            say("ready")
            for line in sys.stdin:
                threading.Thread(target=work, args=(json.loads(line),), daemon=True).start()
        finally:
            os.unlink(path)
            worker.kill()
            ring.close()
            ring.unlink()


main()
