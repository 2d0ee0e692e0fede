"""How long the quick verbs take, beside Python's own start: `--help` and `status --json`.

    python benchmarks/cli_latency.py [--rounds 15] [--json]

The commands take turns, so that a busy machine slows all alike. Target: under 0.3 s each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "qwen-fp8 --help": [sys.executable, "-P", "-m", "qwen_fp8_ops", "--help"],
    "qwen-fp8 status --json": [sys.executable, "-P", "-m", "qwen_fp8_ops", "status", "--json"],
    "qwen-fp8 config": [sys.executable, "-P", "-m", "qwen_fp8_ops", "config"],
}


def seconds(argv: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=60)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "QWEN_FP8_HOME": home}
        for argv in COMMANDS.values():
            seconds(argv, env)
        taken = {name: [] for name in COMMANDS}
        for _ in range(options.rounds):
            for name, argv in COMMANDS.items():
                taken[name].append(seconds(argv, env))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    if options.json:
        print(json.dumps({"median_seconds": medians}))
        return
    base = medians["python -c pass"]
    for name, median in medians.items():
        print(f"{name:<24} {median * 1000:6.0f} ms   {median / base:4.1f} x Python's start")


main()
