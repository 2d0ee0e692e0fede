"""How long the facts of a checkpoint take, and the fast look at every start: sparse files with the headers of a large model.

    python benchmarks/facts.py [--shards 64] [--tensors 2000] [--rounds 7] [--json]

Target: the facts in under 2 s, the fast look in under 1 s for the 50 shards of the 235B model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qwen_fp8_ops.weights import card  # noqa: E402
from qwen_fp8_ops.weights.facts import read_facts  # noqa: E402
from qwen_fp8_ops.weights.headers import read_header  # noqa: E402
from qwen_fp8_ops.weights.verify import verify_fast  # noqa: E402
from tests.weights.shards import INDEX, entries, make_checkpoint, write_small_files, write_sparse_shard  # noqa: E402


def make_many(folder: Path, shards: int, tensors: int) -> None:
    """So many shards of so many tensors, with names as long as the large model's."""
    shard_of = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        header = entries({f"model.language_model.layers.{number}.mlp.experts.{tensor}.gate_proj.weight": ("F8_E4M3", [1536, 1024]) for tensor in range(tensors)})
        write_sparse_shard(folder / name, header)
        shard_of |= dict.fromkeys(header, name)
    write_small_files(folder, {**card.CONFIG_235B, "quantization_config": None})
    (folder / INDEX).write_text(json.dumps({"weight_map": shard_of}))


def median_seconds(work: Callable[[], Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--tensors", type=int, default=2000, help="in each shard")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        many, large = Path(place) / "many", Path(place) / "large"
        many.mkdir()
        make_many(many, options.shards, options.tensors)
        make_checkpoint(large, 50, config=card.CONFIG_235B, sparse=True)
        shards = sorted(many.glob("*.safetensors"))
        what = {
            f"json.loads of {options.shards} headers": lambda: [json.loads(_text(path)) for path in shards],
            f"{options.shards} headers x {options.tensors} tensors": lambda: [read_header(path) for path in shards],
            "facts of them": lambda: read_facts(many),
            "facts of the 235B model": lambda: read_facts(large),
            "fast look at the 235B model": lambda: verify_fast(large),
        }
        medians = {name: median_seconds(work, options.rounds) for name, work in what.items()}
    if options.json:
        print(json.dumps({"median_seconds": medians}))
        return
    for name, median in medians.items():
        print(f"{name:<34} {median:6.3f} s")


def _text(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


main()
