"""``python -m qwen_fp8_ops.weights.demo.training.export FOLDER``: a training's weights as the FP8 checkpoint that the package ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import torch
from torch import Tensor

from qwen_fp8_ops.weights.demo import architecture
from qwen_fp8_ops.weights.demo.files import CHAT_TEMPLATE, small_files, write_json, write_shards
from qwen_fp8_ops.weights.demo.fp8 import dequantize_all, quantize_all
from qwen_fp8_ops.weights.demo.recipe import SHIPPED
from qwen_fp8_ops.weights.demo.training.record import CHECKPOINT, RECORD, record

CARD = Path(__file__).with_name("model_card.md")


def checkpoint_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the large checkpoint's names: transformers keeps all experts of a layer in one tensor, the checkpoint each for itself."""
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("mlp.experts.gate_up_proj"):
            for expert, both in enumerate(value):
                made[name.replace("gate_up_proj", f"{expert}.gate_proj.weight")], made[name.replace("gate_up_proj", f"{expert}.up_proj.weight")] = both.chunk(2)
        elif name.endswith("mlp.experts.down_proj"):
            made |= {name.replace("down_proj", f"{expert}.down_proj.weight"): one for expert, one in enumerate(value)}
        else:
            made[name] = value
    wanted = dict(architecture.tensors())
    found = {name: tuple(value.shape) for name, value in made.items()}
    if found != wanted:
        raise ValueError(f"tensors differ from the architecture: {sorted(set(found.items()) ^ set(wanted.items()))[:4]}")
    return {name: value.contiguous() for name, value in made.items()}


def training_tensors(folder: Path) -> dict[str, Tensor]:
    """The way back: a shipped checkpoint's weights by the names that transformers trains them under."""
    from safetensors.torch import load_file

    weights = dequantize_all({name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()})
    made = {name: value.float() for name, value in weights.items() if ".experts." not in name}
    for layer in range(architecture.LAYERS):
        at = f"{architecture.TEXT}layers.{layer}.mlp.experts."
        experts = [{part: weights[f"{at}{expert}.{part}_proj.weight"].float() for part in ("gate", "up", "down")} for expert in range(architecture.EXPERTS)]
        made[f"{at}gate_up_proj"] = torch.stack([torch.cat([expert["gate"], expert["up"]]) for expert in experts])
        made[f"{at}down_proj"] = torch.stack([expert["down"] for expert in experts])
    return made


def export(folder: Path, to: Path) -> None:
    kept = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
    state = {name.removeprefix("model."): value for name, value in kept["trainee"].items() if name.startswith("model.")}
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    write_shards(to, quantize_all(checkpoint_tensors(state)))
    shutil.copyfile(folder / "tokenizer.json", to / "tokenizer.json")
    shutil.copyfile(CHAT_TEMPLATE, to / CHAT_TEMPLATE.name)
    shutil.copyfile(CARD, to / "README.md")
    vocabulary = json.loads((to / "tokenizer.json").read_text(encoding="utf-8"))
    ids = dict(vocabulary["model"]["vocab"]) | {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    for name, value in (small_files(ids, fp8=True) | {RECORD: record(folder, kept["step"])}).items():
        write_json(to / name, value)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), default=SHIPPED, show_default="the package's own folder")
def main(folder: Path, to: Path) -> None:
    """Quantise the weights in FOLDER and write them as a checkpoint."""
    export(folder, to)
    size = sum(path.stat().st_size for path in to.iterdir())
    click.echo(f"{to}: {size / 1e6:.2f} MB", err=True)


if __name__ == "__main__":
    main()
