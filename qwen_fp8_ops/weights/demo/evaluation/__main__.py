"""``python -m qwen_fp8_ops.weights.demo.evaluation --base-url http://127.0.0.1:8010/v1``: ask a served demo model, and tell how often it is right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from qwen_fp8_ops.outside import http
from qwen_fp8_ops.weights.demo.evaluation.asking import answer_of, request
from qwen_fp8_ops.weights.demo.evaluation.exam import exam
from qwen_fp8_ops.weights.demo.evaluation.judge import judge
from qwen_fp8_ops.weights.demo.world.example import Example

TARGETS = {
    "caption F1": 0.95,
    "count": 0.95,
    "multiple choice": 0.9,
    "box IoU": 0.7,
    "text exact": 0.8,
    "video direction": 0.9,
    "click inside": 0.9,
    "thinking closed": 0.99,
}
ANSWER_SECONDS = 300.0


@dataclass
class Marks:
    """Sums of scores and their numbers, by name."""

    sums: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, scores: dict[str, float]) -> None:
        for name, score in scores.items():
            self.sums[name] = self.sums.get(name, 0.0) + score
            self.numbers[name] = self.numbers.get(name, 0) + 1

    def mean(self, name: str) -> float | None:
        return self.sums[name] / self.numbers[name] if name in self.numbers else None


def ask(example: Example, base_url: str, model: str, key: str) -> tuple[Example, dict[str, float], str]:
    """The example, its scores and what was answered."""
    reply = http.post(f"{base_url}/chat/completions", request(example, model), timeout=ANSWER_SECONDS, key=key)
    if not reply.ok:
        raise click.ClickException(f"The server at {base_url} answered {reply.status or reply.problem}: {reply.body[:300].decode(errors='replace')}")
    answer, closed = answer_of(json.loads(reply.body))
    turn = example.turns[0]
    scores = judge(turn.kind, answer, turn.truth)
    return example, scores | ({"thinking closed": float(closed)} if example.thinks else {}), answer


def evaluate(examples: Iterable[Example], base_url: str, model: str, key: str = "", *, concurrency: int = 4, wrong: Path | None = None) -> Marks:
    """``wrong``: a file for every answer that is not wholly right, one JSON line each."""
    marks = Marks()
    with ThreadPoolExecutor(concurrency) as pool, (wrong or Path("/dev/null")).open("w", encoding="utf-8") as file:
        for number, (example, scores, answer) in enumerate(pool.map(lambda one: ask(one, base_url, model, key), examples), start=1):
            marks.add(scores)
            turn = example.turns[0]
            if min(scores.values()) < 1:
                file.write(
                    json.dumps(
                        {"kind": turn.kind, "question": turn.question, "thinks": example.thinks, "answer": answer, "truth": turn.truth, "scores": scores}
                    )
                    + "\n"
                )
            if number % 100 == 0:
                click.echo(f"{number} answers", err=True)
    return marks


def table(marks: Marks) -> str:
    lines = [f"{'':<26}{'score':>7}{'target':>8}{'asked':>7}"]
    for name in [*TARGETS, *sorted(marks.sums.keys() - TARGETS.keys())]:
        mean, target = marks.mean(name), TARGETS.get(name)
        if mean is not None:
            lines.append(
                f"{name:<26}{mean:>7.3f}{f'{target:.2f}' if target else '':>8}{marks.numbers[name]:>7}" + ("   below" if target and mean < target else "")
            )
    return "\n".join(lines)


@click.command()
@click.option("--base-url", default="http://127.0.0.1:8010/v1", show_default=True)
@click.option("--scenes", default=500, show_default=True, help="Held-out scenes; about six questions each.")
@click.option("--concurrency", default=4, show_default=True)
@click.option("--key-file", type=click.Path(exists=True, path_type=Path), help="A file whose first line is the API key.")
@click.option("--wrong", type=click.Path(path_type=Path), help="Write what was answered wrongly to this file.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object.")
def main(base_url: str, scenes: int, concurrency: int, key_file: Path | None, wrong: Path | None, as_json: bool) -> None:
    """Ask the demo model about held-out scenes and say how often it is right. Exit code 1 when a target is missed."""
    key = key_file.read_text().splitlines()[0].rpartition(":")[2].strip() if key_file else ""
    base_url = base_url.rstrip("/")
    models: Any = http.get(f"{base_url}/models", timeout=10, key=key).json()
    if not models or "data" not in models:
        raise click.ClickException(f"No server answers at {base_url}. Start one: ./start_service.sh --profile demo")
    marks = evaluate(exam(scenes), base_url, models["data"][0]["id"], key, concurrency=concurrency, wrong=wrong)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "schema": 1,
                    "scenes": scenes,
                    "scores": {name: {"mean": marks.mean(name), "asked": marks.numbers[name], "target": TARGETS.get(name)} for name in marks.sums},
                }
            )
        )
    else:
        click.echo(table(marks))
    sys.exit(int(any((marks.mean(name) or 0) < target for name, target in TARGETS.items())))


if __name__ == "__main__":
    main()
