"""Our media server beside ``python -m http.server`` and nginx (Debian's nginx-light), on loopback, in turns.

    python benchmarks/media_server.py [--rounds 5] [--seconds 2] [--large-mb 200] [--discard] [--json]

Small files: requests a second for one of 4 KiB over 8 connections, by wrk where it is installed (http.server speaks
HTTP/1.0 and closes each). Large file: MB/s for the whole and for a range that leaves out the first 1000 bytes, which
http.server does not know; with --discard the client lets the kernel throw the bytes away, so that the server is the limit and not
the client's copying. Medians over the rounds; servers take turns within each round and run one worker each.
Targets: 3 times http.server on small files, nginx's speed on the large one, ranged as fast as whole.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parent.parent
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONNECTIONS = 8
SMALL_BYTES = 4096
OURS, STANDARD, NGINX_NAME = "ours", "http.server", "nginx"
WHOLE, RANGED, SMALL = "whole MB/s", "ranged MB/s", "4 KiB req/s"

Figures = dict[str, dict[str, float]]


@contextmanager
def server(argv: list[str], port: int, folder: Path) -> Iterator[int]:
    process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"{process.args} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{process.args} does not listen")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as trial:
        return int(trial.getsockname()[1])


def commands(root: Path, scratch: Path) -> Iterator[tuple[str, list[str], int]]:
    python = [sys.executable, "-m"]
    port = free_port()
    yield OURS, [*python, "qwen_fp8_ops.media", "--root", str(root), "--port", str(port)], port
    port = free_port()
    yield STANDARD, [*python, "http.server", "--bind", "127.0.0.1", "--directory", str(root), str(port)], port
    if NGINX is None:
        print("nginx is not installed: left out (Debian: apt-get install nginx-light)", file=sys.stderr)
        return
    port = free_port()
    config = scratch / "nginx.conf"  # what Debian ships, with one worker, no access log and no limit of requests a connection
    config.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log;\n"
        "events { worker_connections 768; }\n"
        "http { access_log off; sendfile on; tcp_nopush on; types_hash_max_size 2048; default_type application/octet-stream; keepalive_requests 1000000;\n"
        f"{''.join(f'{kind}_temp_path {scratch}/{kind};' for kind in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))}\n"
        f'server {{ listen 127.0.0.1:{port}; root "{root}"; }} }}\n'
    )
    yield NGINX_NAME, [NGINX, "-p", str(scratch), "-c", str(config)], port


def requests_per_second(port: int, seconds: float) -> float:
    if wrk := shutil.which("wrk"):
        url = f"http://127.0.0.1:{port}/small.bin"
        told = subprocess.run(
            [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}", url], capture_output=True, text=True, timeout=seconds + 30, check=True
        ).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", told)
        if found is None or "Non-2xx" in told:
            sys.exit(f"wrk said:\n{told}")
        return float(found[1])
    return _own_client(port, seconds)


def _own_client(port: int, seconds: float) -> float:
    """As wrk does: one request under way on each connection; a connection that the server closes is made anew."""
    ask = b"GET /small.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    done, selector = 0, selectors.DefaultSelector()

    def connect() -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sock.sendall(ask)
        selector.register(sock, selectors.EVENT_READ, bytearray())

    with ExitStack() as stack:
        stack.callback(lambda: [key.fileobj.close() for key in list(selector.get_map().values())])  # type: ignore[union-attr]
        for _ in range(CONNECTIONS):
            connect()
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            for key, _ in selector.select(10):
                sock, seen = key.fileobj, key.data
                data = sock.recv(65536)  # type: ignore[union-attr]
                seen += data
                if SMALL_BYTES + seen.find(b"\r\n\r\n") + 4 <= len(seen) and b"\r\n\r\n" in seen:
                    done += 1
                    seen.clear()
                    if data and b"HTTP/1.0" not in data:
                        sock.sendall(ask)  # type: ignore[union-attr]
                        continue
                    data = b""
                if not data:
                    selector.unregister(sock)
                    sock.close()  # type: ignore[union-attr]
                    connect()
        return done / (time.monotonic() - start)


def megabytes_per_second(port: int, size: int, skip: int, discard: bool) -> float:
    """One transfer on a new connection; ``skip`` > 0 asks for the range behind so many bytes (servers without ranges send all)."""
    flags, block = (socket.MSG_TRUNC if discard else 0), bytearray(1 << 20)
    wanted = f"Range: bytes={skip}-\r\n" if skip else ""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        start = time.perf_counter()
        sock.sendall(f"GET /large.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{wanted}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        left = int(length[1]) if length else 0
        if left not in (size, size - skip):
            sys.exit(f"unexpected answer: {head.decode('latin-1')}")
        total = left
        while left > 0:
            got = sock.recv_into(block, len(block), flags)
            if not got:
                sys.exit("the server broke off")
            left -= got
        return total / (time.perf_counter() - start) / 1e6


def measure(rounds: int, seconds: float, size: int, discard: bool) -> Figures:
    with tempfile.TemporaryDirectory(prefix="media-server-") as folder, ExitStack() as stack:
        root, scratch = Path(folder) / "root", Path(folder) / "scratch"
        root.mkdir()
        scratch.mkdir()
        (root / "small.bin").write_bytes(os.urandom(SMALL_BYTES))
        (root / "large.bin").write_bytes(os.urandom(size))
        ports = {name: stack.enter_context(server(argv, port, root)) for name, argv, port in commands(root, scratch)}
        seen: dict[str, dict[str, list[float]]] = {name: {SMALL: [], WHOLE: [], RANGED: []} for name in ports}
        for number in range(rounds):
            names = list(ports)[number % len(ports) :] + list(ports)[: number % len(ports)]
            for name in names:
                seen[name][SMALL].append(requests_per_second(ports[name], seconds))
            for kind, skip in ((WHOLE, 0), (RANGED, 1000)) * 5:
                for name in names:
                    seen[name][kind].append(megabytes_per_second(ports[name], size, skip, discard))
        return {name: {kind: median(values) for kind, values in of.items()} for name, of in seen.items()}


def ratios(figures: Figures) -> dict[str, float]:
    ours = figures[OURS]
    found = {"small: ours / http.server": ours[SMALL] / figures[STANDARD][SMALL]}
    if NGINX_NAME in figures:
        found |= {f"{kind.split()[0]}: ours / nginx": ours[kind] / figures[NGINX_NAME][kind] for kind in (WHOLE, RANGED)}
        found["small: ours / nginx"] = ours[SMALL] / figures[NGINX_NAME][SMALL]
    return found | {"ours: ranged / whole": ours[RANGED] / ours[WHOLE]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="for each reading of small files")
    parser.add_argument("--large-mb", type=int, default=200)
    parser.add_argument("--discard", action="store_true", help="large file: the client's kernel throws the bytes away")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.rounds, options.seconds, options.large_mb * 1_000_000, options.discard)
    if options.json:
        print(json.dumps({"schema": 1, "rounds": options.rounds, "discard": options.discard, "medians": figures, "ratios": ratios(figures)}))
        return
    print(f"{'medians':18}{SMALL:>14}{WHOLE:>14}{RANGED:>14}")
    for name, of in figures.items():
        print(f"{name:18}{of[SMALL]:14,.0f}{of[WHOLE]:14,.0f}{of[RANGED]:14,.0f}")
    for name, value in ratios(figures).items():
        print(f"{name:32}{value:6.2f}")


if __name__ == "__main__":
    main()
