"""What ``caption`` and ``qa`` have in common on the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.cli.chat import setting

if TYPE_CHECKING:
    from qwen_fp8_ops.client.batch.inputs import Shard

MODEL_PIXELS = 16384 * 32 * 32
"""As ``client.batch.images``; repeated here so that --help need not read it. A test compares them."""
FORMATS = ("json", "jsonl", "parquet")


@dataclass(frozen=True)
class BatchOptions:
    output_dir: Path
    model_name: str | None
    model: str | None
    server_url: str | None
    job: str | None
    key_file: Path | None
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    concurrency: int | None
    overwrite: bool
    retry_failed: bool
    limit: int | None
    shard: Shard | None
    merge: bool
    format: str
    max_pixels: int
    timeout: float
    patience: float

    def sampling(self) -> dict[str, Any]:
        """For every request; None leaves the server's own default."""
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}


def batch_options(max_tokens: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a verb the options of a batch, gathered in its argument ``batch``.

    Args:
        max_tokens: default of --max-tokens.
    """
    options = [
        click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), default=Path("output"), help="Where results go; default: ./output."),
        click.option("--model-name", metavar="NAME", help="Name of the model in the results' paths; default: as the server calls it."),
        click.option("--model", metavar="NAME", help="Ask for this model; default: --model-name if the server has it, else its first."),
        click.option("--server-url", metavar="URL", help="Ask this API instead of the service of this folder; its key may be in OPENAI_API_KEY."),
        click.option("--job", metavar="ID", help="Ask the service of this SLURM job."),
        click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE", help="Use the first key of this file."),
        click.option(
            "--max-tokens", type=setting("MAX_TOKENS"), default=str(max_tokens), show_default=True, metavar="N", help="Longest answer, thinking included."
        ),
        click.option("--temperature", type=setting("TEMPERATURE"), metavar="X", help="0 is always the same answer; default: the server's."),
        click.option("--top-p", type=setting("TOP_P"), metavar="X", help="Share of likely tokens to choose from; default: the server's."),
        click.option("--seed", type=int, metavar="N", help="Make chance repeatable."),
        click.option("--concurrency", type=click.IntRange(1, 4096), metavar="N", help="Requests at once; default: as many as pay off."),
        click.option("--overwrite", is_flag=True, help="Do everything again, whatever is there."),
        click.option("--retry-failed", is_flag=True, help="Ask again what failed before; else only what is new is asked."),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N inputs."),
        click.option("--shard", type=_shard, metavar="I/N", help="Only the I-th of N shares, for job arrays; --merge puts them together."),
        click.option("--merge", is_flag=True, help="Put the results of all shares together, and ask nothing; --overwrite forgets an earlier whole."),
        click.option("--format", type=click.Choice(FORMATS), default="json", show_default=True, help="Form of the result."),
        click.option(
            "--max-pixels", type=click.IntRange(1024), default=MODEL_PIXELS, show_default=True, metavar="N", help="Reduce larger images to so many pixels."
        ),
        click.option(
            "--timeout", type=click.FloatRange(0.1, 86_400), default=900.0, show_default=True, metavar="SECONDS", help="Longest silence of one request."
        ),
        click.option(
            "--patience",
            type=click.FloatRange(0, 604_800),
            default=1800.0,
            show_default=True,
            metavar="SECONDS",
            help="Longest wait for a service that starts or restarts.",
        ),
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **values: Any) -> Any:
            batch = BatchOptions(**{field.name: values.pop(field.name) for field in fields(BatchOptions)})
            _refuse_contradictions(batch)
            return function(*args, batch=batch, **values)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _refuse_contradictions(batch: BatchOptions) -> None:
    if batch.server_url and batch.job:
        raise click.UsageError("--server-url and --job both name a service; give one of them.")
    if batch.merge and (batch.shard or batch.retry_failed):
        raise click.UsageError("--merge asks nothing: it goes with neither --shard nor --retry-failed.")


def unicode_text(text: str) -> str:
    """An option's type: what the service can be sent. What is not UTF-8 on the command line would else fail once for every input."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8 text.") from None
    return text


def _shard(text: str) -> Shard:
    from qwen_fp8_ops.client.batch.inputs import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}.") from None
