"""Time to ready through `start` over bare vLLM with the same arguments, side by side.

    python benchmarks/start_overhead.py [--rounds 3] [--json]

Each round starts our service (from the command's exec until it returns: checks, media server, engine, first token) and then bare
vLLM (from exec until /health answers and one token came), with the demo checkpoint on the CPU. Loopback only, ends by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qwen_fp8_ops.config.load import load  # noqa: E402 - the path comes first
from qwen_fp8_ops.config.paths import RunPaths  # noqa: E402
from qwen_fp8_ops.plan.launch import LaunchPlan, make_plan  # noqa: E402
from tests.ports import free_port  # noqa: E402

LIMIT_SECONDS = 600


def through_start(home: Path, overrides: list[str]) -> float:
    env = {**os.environ, "QWEN_FP8_HOME": str(home), "QWEN_FP8_PYTHON": sys.executable}
    words = [word for text in overrides for word in ("--set", text)]
    began = time.perf_counter()
    subprocess.run([ROOT / "start_service.sh", "--profile", "demo", "--detach", *words], env=env, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    seconds = time.perf_counter() - began
    subprocess.run([ROOT / "stop_service.sh"], env=env, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    return seconds


def bare(plan: LaunchPlan) -> float:
    engine = plan.engines[0]
    argv = [word for word in engine.argv if not word.startswith("--middleware")]
    env = {**os.environ, **{key: value for key, value in engine.env.items() if not key.startswith("QWEN_FP8_")}}
    base = engine.url.removesuffix("/v1")
    began = time.perf_counter()
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            while not answers(f"{base}/health"):
                if server.poll() is not None or time.perf_counter() - began > LIMIT_SECONDS:
                    raise SystemExit("bare vLLM did not start")
                time.sleep(0.05)
            answers(f"{engine.url}/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
            return time.perf_counter() - began
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def answers(url: str, body: object = None) -> bool:
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        overrides = [f"PORT={free_port()}", f"MEDIA_PORT={free_port()}"]
        through_start(home, overrides)  # builds the checkpoint and warms every cache; not counted
        plan = make_plan(load(profiles=["demo"], overrides=overrides), RunPaths(home))
        for number in range(options.rounds):
            ours.append(through_start(home, overrides))
            theirs.append(bare(plan))
            if not options.json:
                print(f"round {number + 1}: start {ours[-1]:.2f} s, bare vLLM {theirs[-1]:.2f} s, ratio {ours[-1] / theirs[-1]:.3f}", flush=True)
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    if options.json:
        print(json.dumps({"start_seconds": ours, "bare_seconds": theirs, "median_ratio": ratio}))
    else:
        print(f"median of the rounds' ratios: {ratio:.3f}  (target: at most 1.05)")


main()
