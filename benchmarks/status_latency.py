"""How long it takes to look at eight GPUs: `status --json` and `gpus --json` beside `gpustat --json` and `nvitop -1`.

    python benchmarks/status_latency.py [--rounds 15] [--idle] [--json]

All read the same stand-in for the driver's library (tests/fake_nvml; needs a C compiler), which answers at once: what is measured is
the programs. On each GPU a real process holds memory, or with --idle none does: gpustat waits 0.1 s for the CPU share of each. The
commands take turns, so that a busy machine slows all alike. Target: not slower than the faster of the two others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fake_nvml.fake import build, engine_on  # noqa: E402 - the path comes first

GPUS = 8
OURS = {"qwen-fp8 status --json": ["qwen_fp8_ops", "status", "--json"], "qwen-fp8 gpus --json": ["qwen_fp8_ops", "gpus", "--json"]}
OTHERS = {"gpustat --json": ["gpustat", "--json"], "nvitop -1": ["nvitop", "-1"]}


def seconds(words: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-P", "-m", *words], env=env, capture_output=True, text=True, timeout=60)
    taken = time.perf_counter() - began
    if "H100" not in done.stdout:
        raise SystemExit(f"{' '.join(words)} shows no GPU: {done.stderr or done.stdout}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--idle", action="store_true", help="no process on any GPU")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    commands = {**OURS, **OTHERS}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    workers = [subprocess.Popen(["sleep", "3600"]) for _ in range(0 if options.idle else GPUS)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            driver = build(Path(folder))
            driver.show(f"count={GPUS} {engine_on([worker.pid for worker in workers], 70_000)}")
            env = driver.whole_environ(QWEN_FP8_HOME=folder)
            for number in range(options.rounds + 1):
                for name, words in commands.items():
                    value = seconds(words, env)
                    if number:  # the first round warms the caches
                        taken[name].append(value)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    medians = {name: statistics.median(values) for name, values in taken.items()}
    faster = min(OTHERS, key=medians.__getitem__)
    ratios = {name: medians[name] / medians[faster] for name in OURS}
    if options.json:
        print(json.dumps({"median_seconds": medians, "faster_other": faster, "ratios": ratios}))
        return
    for name, median in medians.items():
        note = f"   {ratios[name]:.2f} x {faster}" if name in ratios else ""
        print(f"{name:<24} {median * 1000:6.0f} ms{note}")
    print(
        f"target: at most 1.00 x the faster of the others; {options.rounds} rounds, {'no process on' if options.idle else 'a process on each of'} {GPUS} GPUs"
    )


main()
