"""What the batch client itself costs: items a second and CPU an item against a server that answers at once, and memory by the inputs.

    python benchmarks/client_overhead.py [--items 2000] [--concurrency 32] [--rounds 3] [--memory 1000,100000] [--json]

Both clients caption the same small pictures at the same concurrency, in turns and each in a process of its own: ours with everything
it does (looking at each file, journal, order, result), and a plain loop of the `openai` SDK's asynchronous client that reads a file,
sends it and keeps the text in a list. Target: not slower than the plain loop. Memory is the peak of our process for each number of
inputs; it may grow by what is known of each input alone, its name and whether it is done: about 0.4 kB.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qwen_fp8_ops.client.async_api import Endpoint  # noqa: E402 - the path comes first
from qwen_fp8_ops.client.batch.captions import PROMPTS, publish_captions  # noqa: E402
from qwen_fp8_ops.client.batch.files import ResultFiles  # noqa: E402
from qwen_fp8_ops.client.batch.folder import Folder  # noqa: E402
from qwen_fp8_ops.client.batch.images import MODEL_PIXELS, require_pillow  # noqa: E402
from qwen_fp8_ops.client.batch.item import Recipe  # noqa: E402
from qwen_fp8_ops.client.batch.journal import Journal  # noqa: E402
from qwen_fp8_ops.client.batch.run import RunOptions, carry_out  # noqa: E402
from qwen_fp8_ops.client.batch.tally import Tally  # noqa: E402

PROMPT = PROMPTS["SIMPLE"]
MODEL = "demo/little-model"
TOKENS = 64
MOST_LINKS = 50_000
"""ext4 takes 65,000 to one file."""


def ours(url: str, images: Path, output: Path, concurrency: int, model: str) -> int:
    require_pillow()
    folder, files = Folder(images, PROMPT), ResultFiles(output, "captions")
    tally, recipe = Tally(), Recipe("caption", model, PROMPT, sampling={"max_tokens": TOKENS, "temperature": 0}, max_pixels=MODEL_PIXELS)
    with Journal(files.journal, recipe, overwrite=True) as journal:
        carry_out(folder, recipe, journal, lambda: Endpoint(url), RunOptions(concurrency=concurrency), tally, print)
        publish_captions(journal, folder, files, "json")
    return tally.answered


def plain(url: str, images: Path, output: Path, concurrency: int, model: str) -> int:
    """What one would write first."""
    import httpx
    from openai import AsyncOpenAI

    async def ask_all() -> dict[str, str]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=httpx.AsyncClient(limits=limits, timeout=900))
        semaphore, captions = asyncio.Semaphore(concurrency), {}

        async def ask(path: Path) -> None:
            async with semaphore:
                picture = base64.b64encode(path.read_bytes()).decode()  # noqa: ASYNC240 - as one would write it
                content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}, {"type": "text", "text": PROMPT}]
                messages: Any = [{"role": "user", "content": content}]
                answer = await client.chat.completions.create(model=model, messages=messages, max_tokens=TOKENS, temperature=0)
                captions[path.name] = answer.choices[0].message.content or ""

        await asyncio.gather(*(ask(path) for path in sorted(images.iterdir())))  # noqa: ASYNC240
        return captions

    captions = asyncio.run(ask_all())
    output.mkdir(parents=True, exist_ok=True)
    (output / "captions.json").write_text(json.dumps(captions))
    return len(captions)


CLIENTS = {"ours": ours, "plain openai loop": plain}


def child(name: str, url: str, images: Path, output: Path, concurrency: int, model: str) -> None:
    """One measurement, alone in its process. Imports are not counted."""
    if name != "ours":
        import openai  # noqa: F401
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    done = CLIENTS[name](url, images, output, concurrency, model)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"items": done, "items_per_second": done / seconds, "cpu_ms_per_item": 1000 * cpu / done, "peak_mib": after.ru_maxrss / 1024}))


def measured(name: str, url: str, images: Path, output: Path, concurrency: int, model: str = MODEL) -> dict[str, float]:
    words = [sys.executable, __file__, "--child", name, url, str(images), str(output), "--concurrency", str(concurrency), "--model", model]
    done = subprocess.run(words, capture_output=True, text=True, timeout=36_000)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def quick_server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "tests.batch.quick_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait(30)


def make_pictures(folder: Path, count: int) -> Path:
    """Names for one small picture: what is measured is the client, not the disk."""
    from PIL import Image

    folder.mkdir()
    picture = Image.effect_noise((64, 64), 60).convert("RGB")
    for number in range(count):
        path = folder / f"{number:06d}.png"
        if number % MOST_LINKS == 0:
            picture.save(path)
            first = path
        else:
            os.link(first, path)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="1000,100000", help="numbers of inputs; empty for none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default=MODEL, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, url, images, output = options.child
        child(name, url, Path(images), Path(output), options.concurrency, options.model)
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    memory: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, quick_server() as url:
        images = make_pictures(Path(folder, "images"), options.items)
        for turn in range(options.rounds):
            for name in CLIENTS:
                runs[name].append(measured(name, url, images, Path(folder, f"output {turn} {name}"), options.concurrency))
        for count in map(int, filter(None, options.memory.split(","))):
            many = make_pictures(Path(folder, f"images {count}"), count)
            memory[count] = measured("ours", url, many, Path(folder, f"output {count}"), options.concurrency)["peak_mib"]
    middle = {name: {key: statistics.median(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
    ratio = middle["ours"]["items_per_second"] / middle["plain openai loop"]["items_per_second"]
    if options.json:
        print(json.dumps({"clients": middle, "items_per_second_ratio": ratio, "peak_mib": memory}))
        return
    for name, found in middle.items():
        print(f"{name:18} {found['items_per_second']:8.0f} items/s {found['cpu_ms_per_item']:7.2f} ms CPU an item {found['peak_mib']:7.0f} MiB")
    print(f"ours / plain loop: {ratio:.2f} (target: at least 1)")
    for count, peak in memory.items():
        print(f"{count:9,} inputs: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
