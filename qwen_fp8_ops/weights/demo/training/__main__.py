"""Train the demo model from nothing: first what patches show and how to find what is asked for, in turns, then conversations."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional

from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.weights.demo import tokenizer as words
from qwen_fp8_ops.weights.demo.files import CHAT_TEMPLATE, LONGEST_PROMPT_TOKENS
from qwen_fp8_ops.weights.demo.training.encoding import Encoder
from qwen_fp8_ops.weights.demo.training.export import training_tensors
from qwen_fp8_ops.weights.demo.training.model import BALANCE, Batch, Trainee
from qwen_fp8_ops.weights.demo.training.muon import Muon
from qwen_fp8_ops.weights.demo.training.record import CHECKPOINT, LOG, RECORD, SETTINGS, history
from qwen_fp8_ops.weights.demo.training.stream import HELD_OUT, Stream, encoded, read
from qwen_fp8_ops.weights.demo.world import examples

OUTER = re.compile(r"embed|lm_head|heads|mlp\.gate\.|merger")
"""Matrices at the network's edges, routers and mergers, which AdamW trains; Muon trains the others. On the same batches, 200 steps
after a change from AdamW alone, the loss was lower by 0.03 to 0.04."""
WARM_UP = 200
DECAY = 0.35
"""Share of the steps at the end over which the learning rate falls to nothing."""
LOOK_WEIGHT = 1.0
"""How much what the patches show counts beside the answers."""
LOOKS_TO_ONE_ANSWER = 2
"""How many times as many examples a step has that teaches to see or to look up."""
REPORT_EVERY, SAVE_EVERY, JUDGE_EVERY = 20, 200, 500
JUDGED_AT_ONCE = 24


def known_texts() -> list[str]:
    """What is said in this world, for the tokenizer to learn its words from."""
    random = Random(HELD_OUT - 1)
    texts = []
    for _ in range(3000):
        example = examples.make(random)
        texts += [part for turn in example.turns for part in (turn.question, turn.thought, turn.answer)]
        texts += [json.dumps(tool) for tool in example.tools]
    return texts


def open_tokenizer(folder: Path) -> Any:
    """The folder's own, made and kept there at the first time."""
    path = folder / "tokenizer.json"
    if not path.exists():
        words.train(known_texts()).save(str(path))
    transformers: Any = import_module("transformers")
    found = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), model_max_length=LONGEST_PROMPT_TOKENS)
    found.chat_template = CHAT_TEMPLATE.read_text()
    return found


class Training:
    """Everything that a checkpoint holds. Steps up to ``look_steps`` teach, in turns, the vision tower alone and drills of lookups."""

    def __init__(self, folder: Path, seed: int, steps: int, look_steps: int, batch: int, rate: float) -> None:
        torch.manual_seed(seed)
        self.folder, self.seed, self.steps, self.look_steps, self.batch, self.rate = folder, seed, steps, look_steps, batch, rate
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder = Encoder(open_tokenizer(folder))
        self.trainee = Trainee(self.encoder.tokenizer.get_vocab()).to(self.device)
        inner = {name for name, weight in self.trainee.named_parameters() if weight.dim() in (2, 3) and not OUTER.search(name)}
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon([weight for name, weight in self.trainee.named_parameters() if name in inner], lr=rate, weight_decay=0.05),
            torch.optim.AdamW(
                [weight for name, weight in self.trainee.named_parameters() if name not in inner], lr=rate, betas=(0.9, 0.98), weight_decay=0, fused=True
            ),
        ]
        self.step = 0
        if (folder / CHECKPOINT).exists():
            kept = torch.load(folder / CHECKPOINT, weights_only=True, map_location=self.device)
            self.trainee.load_state_dict(kept["trainee"])
            for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.step = kept["step"]

    def save(self) -> None:
        kept = {"trainee": self.trainee.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "step": self.step}
        torch.save(kept, self.folder / (CHECKPOINT + ".new"))
        os.replace(self.folder / (CHECKPOINT + ".new"), self.folder / CHECKPOINT)

    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / WARM_UP)
        if self.step > self.look_steps:
            warm = min(1.0, (self.step - self.look_steps) / WARM_UP)
        left = (self.steps - self.step) / (DECAY * self.steps)
        return self.rate * min(warm, left, 1.0)

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One step; returns the losses of what it taught: ``answers``, ``looks``."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
        losses, seen, loss = {}, None, torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            if len(batch.grids):
                seen, losses["looks"] = self.trainee.look(batch)
                loss = loss + LOOK_WEIGHT * losses["looks"]
            if batch.answers.any():
                logits, wanted = self.trainee.answer(batch, seen)
                losses["answers"] = functional.cross_entropy(logits, wanted)
                loss = loss + losses["answers"] + BALANCE * self.trainee.imbalance()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Share of held-out answers that are right in every token, given the right ones before it; by kind."""
        together = self.step > self.look_steps
        drawn = encoded(self.encoder, HELD_OUT, 512 if together else 64, examples.make if together else examples.make_to_look_up)
        drawn.sort(key=lambda example: len(example.ids))
        right: dict[str, list[bool]] = {}
        for start in range(0, len(drawn), JUDGED_AT_ONCE):
            batch = Batch(drawn[start : start + JUDGED_AT_ONCE]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                seen = self.trainee.look(batch)[0] if len(batch.grids) else None
                logits, wanted = self.trainee.answer(batch, seen)
            numbers = batch.answers[:, 1:]
            hits = torch.split(logits.argmax(-1) == wanted, (numbers > 0).sum(1).tolist())
            for kinds, hit, row in zip(batch.kinds, hits, numbers, strict=True):
                for number, kind in enumerate(kinds, start=1):
                    right.setdefault(kind, []).append(bool(hit[row[row > 0] == number].all()))
        return {kind: round(sum(hits) / len(hits), 3) for kind, hits in sorted(right.items())}

    @torch.no_grad()
    def judge_looks(self) -> dict[str, float]:
        """Share of held-out patches that show something and are taken for what they show."""
        names = ("colour", "shape", "character", "place", *("corner",) * 8)
        right: dict[str, list[Tensor]] = {}
        drawn = encoded(self.encoder, HELD_OUT + 2, 256, examples.make_to_look_at)
        for start in range(0, len(drawn), JUDGED_AT_ONCE):
            batch = Batch(drawn[start : start + JUDGED_AT_ONCE]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                seen, _ = self.trainee.look(batch)
                for name, (lit, logits, wanted) in zip(names, self.trainee.readings(seen.last_hidden_state, batch.labels), strict=True):
                    right.setdefault(name, []).append((logits.argmax(1) == wanted)[lit])
        return {name: round(float(torch.cat(hits).float().mean()), 3) for name, hits in right.items()}

    def batches(self) -> Iterator[Batch]:
        if self.step < self.look_steps:
            looks = read(Stream(self.encoder, self.seed, LOOKS_TO_ONE_ANSWER * self.batch, (self.step + 1) // 2, examples.make_to_look_at))
            lookups = read(Stream(self.encoder, self.seed, LOOKS_TO_ONE_ANSWER * self.batch, self.step // 2, examples.make_to_look_up))
            for step in range(self.step, self.look_steps):
                yield next(lookups if step % 2 else looks)
        yield from read(Stream(self.encoder, self.seed, self.batch, self.step))

    def run(self) -> None:
        began, first, log = time.monotonic(), self.step, (self.folder / LOG).open("a")
        losses = dict.fromkeys(("answers", "looks"), torch.zeros(()))
        for batch in self.batches():
            losses |= self.learn(batch.to(self.device))
            if self.step % REPORT_EVERY == 0:
                pace = (time.monotonic() - began) / (self.step - first)
                facts = {"step": self.step} | {name: round(float(value), 4) for name, value in losses.items()}
                facts |= {"rate": round(self.learning_rate(), 6), "seconds_per_step": round(pace, 3)}
                left = pace * (self.steps - self.step)
                log.write(json.dumps(facts) + "\n")
                log.flush()
                click.echo(
                    f"{facts['step']}/{self.steps}  answers {facts['answers']:.3f}  looks {facts['looks']:.3f}  {pace:.2f} s/step  {left / 60:.0f} min left",
                    err=True,
                )
            if self.step % SAVE_EVERY == 0 or self.step >= self.steps:
                self.save()
            if self.step % JUDGE_EVERY == 0 or self.step >= self.steps >= SAVE_EVERY:  # a run shorter than that is a trial
                judged = {"step": self.step, "patches": self.judge_looks(), "right": self.judge()}
                log.write(json.dumps(judged) + "\n")
                click.echo(f"  {judged}", err=True)
            if self.step >= self.steps:
                break


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=1)
@click.option("--steps", default=10500)
@click.option(
    "--look-steps", default=2500, help="Steps at the beginning that teach, in turns, the vision tower to see and the language model to find what was asked for."
)
@click.option("--batch", default=24)
@click.option("--rate", default=1.2e-3, help="Learning rate after the warm-up.")
@click.option("--begin-with", type=click.Path(exists=True, path_type=Path), help="A checkpoint like the shipped one to go on from, instead of from nothing.")
def main(folder: Path, seed: int, steps: int, look_steps: int, batch: int, rate: float, begin_with: Path | None) -> None:
    """Train in FOLDER, which keeps the state; the same command goes on where an interrupted one stopped.

    \b
    Examples:
      python -m qwen_fp8_ops.weights.demo.training ~/demo-training
      python -m qwen_fp8_ops.weights.demo.training.export ~/demo-training
    """
    folder.mkdir(parents=True, exist_ok=True)
    if begin_with and not (folder / "tokenizer.json").exists():
        shutil.copyfile(begin_with / "tokenizer.json", folder / "tokenizer.json")
    settings: dict[str, Any] = {"seed": seed, "steps": steps, "look_steps": look_steps, "batch": batch, "learning_rate": rate, "torch": torch.__version__}
    if begin_with and (begin_with / RECORD).exists():
        settings["before"] = history(begin_with)
    (folder / SETTINGS).write_text(json.dumps(settings) + "\n")
    training = Training(folder, seed, steps, look_steps, batch, rate)
    if begin_with and training.step == 0:
        training.trainee.model.load_state_dict(training_tensors(begin_with))
    try:
        training.run()
    except KeyboardInterrupt:
        training.save()
        click.echo(f"Kept at step {training.step}. The same command goes on.", err=True)
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
