"""How fast every byte is verified, beside the shell's way over the same files: `xargs -P` with sha256sum, and with openssl.

    python benchmarks/verify.py [--files 20] [--megabytes 100] [--rounds 5] [--folder DIR] [--json]

The files are in the page cache, so that hashing is measured and no disk. The three take turns. Ours is the whole command, with
Python's start, the headers and the manifest. Target: at least 0.9 of sha256sum's speed.
"""

from __future__ import annotations

import argparse
import hashlib
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
sys.path.insert(0, str(ROOT))

from qwen_fp8_ops.weights import manifest  # noqa: E402
from qwen_fp8_ops.weights.manifest import Manifest, ManifestFile  # noqa: E402


def make_model(folder: Path, files: int, size: int) -> None:
    """Shards of random bytes, and a manifest that knows them."""
    shard_of, known = {}, []
    for number in range(files):
        path = folder / f"model-{number + 1:05}-of-{files:05}.safetensors"
        header = json.dumps({f"x{number}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(size))
        shard_of[f"x{number}"] = path.name
        known.append(path)
    config = {"architectures": ["Other"], "num_hidden_layers": 1}
    for name, value in {"config.json": config, "tokenizer.json": {"a": 1}, "tokenizer_config.json": {"a": 1}, "model.safetensors.index.json": {"weight_map": shard_of}}.items():
        (folder / name).write_text(json.dumps(value))
        known.append(folder / name)
    entries = [ManifestFile(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in known]
    manifest.write(folder, Manifest("bench/mark", "a" * 40, "main", tuple(entries), True))


def seconds(argv: list[str], env: dict[str, str], names: str) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=env, input=names, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=600, text=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=100, help="of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed again; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        make_model(folder, options.files, options.megabytes * 10**6)
        names = "\0".join(str(path) for path in folder.iterdir())
        env = {**os.environ, "PYTHONPATH": str(ROOT), "QWEN_FP8_HOME": place}
        xargs = ["xargs", "-0", "-n", "1", "-P", str(cores)]
        commands = {"ours": [sys.executable, "-P", "-m", "qwen_fp8_ops", "verify", "--path", place], "sha256sum": [*xargs, "sha256sum"]}
        if shutil.which("openssl"):
            commands["openssl"] = [*xargs, "openssl", "dgst", "-sha256"]
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for round_number in range(options.rounds + 1):
            for name, argv in commands.items():
                spent = seconds(argv, env, names)
                if round_number:  # the first one fills the caches
                    taken[name].append(spent)
        total = sum(path.stat().st_size for path in folder.iterdir())
    medians = {name: statistics.median(values) for name, values in taken.items()}
    ratios = {name: median / medians["ours"] for name, median in medians.items() if name != "ours"}
    if options.json:
        print(json.dumps({"bytes": total, "cores": cores, "median_seconds": medians, "our_speed_against": ratios}))
        return
    print(f"{total / 1e9:.1f} GB in {options.files} files, {cores} cores, {options.rounds} rounds")
    for name, median in medians.items():
        print(f"{name:<10} {median:6.2f} s  {total / median / 1e9:5.2f} GB/s" + (f"   ours is {ratios[name]:.2f} times as fast" if name in ratios else ""))


main()
