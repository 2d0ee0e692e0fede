"""What is told of a training beside its weights: how long, from which seed, and how good it was at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKPOINT = "training.pt"
LOG = "training.jsonl"
SETTINGS = "training-settings.json"
RECORD = "training.json"


def history(folder: Path) -> dict[str, Any]:
    """How the checkpoint in a folder came to be, its own beginning within it."""
    told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return {name: told[name] for name in ("step", "seed", "look_steps", "batch", "learning_rate", "before") if name in told}


def record(folder: Path, step: int) -> dict[str, Any]:
    """training.json: the settings, the step the weights are of, and the last figures before it."""
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    losses = [line for line in lines if "answers" in line and line["step"] <= step]
    judged = [line for line in lines if "right" in line and line["step"] <= step]
    settings = json.loads((folder / SETTINGS).read_text())
    last = judged[-1] if judged else {}
    figures = {"losses": losses[-1] if losses else None, "right_on_512_held_out": last.get("right"), "patches_right": last.get("patches")}
    return {"schema": 1, "step": step, **settings, **figures}
