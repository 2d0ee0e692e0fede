"""Our download, which verifies every byte, against `hf download`, which does not: the same files from the same server on this machine.

    python benchmarks/download.py [--rounds 3] [--files 20] [--megabytes 100] [--folder /tmp] [--json]

The two take turns, so that a busy machine slows both alike; every run starts with an empty folder. Needs three times the size of the
files as room, and removes everything. The server is that of the tests, in a process of its own, and sends files by the kernel. Target:
at least 0.95 of the speed of `hf download`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPO = "owner/name"
PIECE_BYTES = 10**6


def make_files(folder: Path, count: int, size: int) -> None:
    piece = os.urandom(PIECE_BYTES)
    for number in range(1, count + 1):
        with (folder / f"model-{number:05}-of-{count:05}.safetensors").open("wb") as file:
            file.write(number.to_bytes(8, "little"))
            for begin in range(8, size, PIECE_BYTES):
                file.write(piece[: min(PIECE_BYTES, size - begin)])


def seconds(argv: list[str], env: dict[str, str], target: Path) -> float:
    shutil.rmtree(target, ignore_errors=True)
    os.sync()  # what the run before wrote goes to the disk now, and not while this one is measured
    began = time.perf_counter()
    done = subprocess.run([*argv, str(target)], env=env, capture_output=True, text=True, timeout=3600)
    taken = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stderr}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=100, help="size of each file")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = options.megabytes * 10**6
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        home = Path(scratch)
        (home / "source").mkdir()
        make_files(home / "source", options.files, size)
        server = subprocess.Popen([sys.executable, "-m", "tests.hub.server", str(home / "source"), "--repo", REPO], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            endpoint = server.stdout.readline().split()[0]
            env = {**os.environ, "PYTHONPATH": str(ROOT), "QWEN_FP8_HOME": scratch, "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "NO_PROXY": "*"}
            env |= {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            sides = {
                "qwen-fp8 download": [sys.executable, "-P", "-m", "qwen_fp8_ops", "download", "--set", f"MODEL_ID={REPO}", "--to"],
                "hf download": [str(Path(sys.executable).with_name("hf")), "download", REPO, "--local-dir"],
            }
            taken: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(options.rounds + 1):
                for name, argv in sides.items():
                    spent = seconds(argv, env, home / "target")
                    if number:  # the first round warms up: imports, page cache, the server's hashes
                        taken[name].append(spent)
        finally:
            server.kill()
            server.communicate()
    report(taken, options.files * size, as_json=options.json)


def report(taken: dict[str, list[float]], total: int, *, as_json: bool) -> None:
    medians = {name: statistics.median(values) for name, values in taken.items()}
    ours, theirs = medians.values()
    ratio = theirs / ours
    if as_json:
        print(json.dumps({"seconds": taken, "median_seconds": medians, "bytes": total, "ratio": round(ratio, 3), "target": 0.95}))
        return
    for name, median in medians.items():
        print(f"{name:<18} {median:6.2f} s  {total / median / 1e6:6.0f} MB/s   ({', '.join(f'{value:.2f}' for value in taken[name])})")
    print(f"ratio of speeds {ratio:.2f}, target 0.95: {'met' if ratio >= 0.95 else 'MISSED'}")


if __name__ == "__main__":
    main()
