"""``qa``: ask the questions of a file about their images, and count the right answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.cli.batch_options import BatchOptions, batch_options, unicode_text
from qwen_fp8_ops.cli.common import Call, shared_options

if TYPE_CHECKING:
    from qwen_fp8_ops.client.batch.qa.questions import Sheet
    from qwen_fp8_ops.client.batch.qa.results import Published
    from qwen_fp8_ops.client.batch.qa.verdicts import Verdict


@click.command(
    epilog="Examples:\n\n\b\n"
    "  qwen-fp8 qa --question-path questions.parquet --dataset-path data\n"
    "  qwen-fp8 qa --question-path questions.jsonl --dataset-path data --max-tokens 8192 --temperature 0 --show-errors\n"
    "  qwen-fp8 qa --question-path questions.csv --dataset-path data --limit 20 --overwrite\n"
    "  qwen-fp8 qa --question-path questions.parquet --dataset-path data --repeat 5          (majority of five)\n"
    "  qwen-fp8 qa --question-path questions.parquet --dataset-path data --circular          (right in every rotation)\n"
    "  qwen-fp8 qa --question-path questions.parquet --dataset-path data --server-url http://node042:8000 --shard 2/4\n"
    "  qwen-fp8 qa ... --json | jq .metrics.overall_accuracy"
)
@click.option("--question-path", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Questions: parquet, JSON Lines or CSV.")
@click.option("--dataset-path", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder that the images' paths begin at.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are no usable question; else nothing is asked.")
@click.option(
    "--instruction",
    type=unicode_text,
    metavar="TEXT",
    help="Say this behind every question; default: to answer in \\boxed{}, where a question does not say how.",
)
@click.option("--repeat", "times", type=click.IntRange(1, 100), default=1, show_default=True, metavar="N", help="Ask N times; the majority counts.")
@click.option("--circular", is_flag=True, help="Ask with every rotation of the choices; all must be answered right.")
@click.option("--tolerance", type=click.FloatRange(0, 1), metavar="X", help="For open questions: numbers may differ by this share; 0.01 is 1 %.")
@click.option("--show-errors", is_flag=True, help="List the wrong answers.")
@click.option("--report/--no-report", default=True, help="Write the HTML page that shows the wrong answers with their images.")
@batch_options(max_tokens=128)
@shared_options
def qa(call: Call, question_path: Path, dataset_path: Path, batch: BatchOptions, **options: Any) -> int:
    """Ask questions about images, and count the right answers; an interrupted run goes on where it was.

    FILE has the columns qid, question, answer and image (a path or a list of them), and if there are: choices, category, source. The
    results are OUTPUT/qa/MODEL/MODEL_qa_results.json and MODEL_qa_metrics.json. What counts as an answer: docs/qa.md.
    """
    from qwen_fp8_ops.cli.batch_run import Batch, as_json, as_text, exit_code, give, result_files
    from qwen_fp8_ops.client.batch.folder import readable
    from qwen_fp8_ops.client.batch.images import require_pillow
    from qwen_fp8_ops.client.batch.item import Recipe
    from qwen_fp8_ops.client.batch.problems import publish_problems
    from qwen_fp8_ops.client.batch.publish import require_pyarrow
    from qwen_fp8_ops.client.batch.qa.asks import Asks
    from qwen_fp8_ops.client.batch.qa.results import Facts, check_same_run, publish_qa, wrong_ones
    from qwen_fp8_ops.outside.files import write_json

    require_pillow()
    if batch.format == "parquet":
        require_pyarrow()
    sheet = _read(call, question_path, dataset_path, skip_bad=options["skip_bad"])
    asks = Asks(sheet.questions, dataset_path, options["times"], options["circular"], options["instruction"], batch.seed or 0)
    if asks.times > 1 and batch.temperature == 0:
        call.say("At --temperature 0 every repetition gives the same answer; leave it out, or give a higher one.")
    # A question's requests belong together: shares and limits are made of whole questions, here and not by the engine.
    service = Batch(call, replace(batch, limit=None, shard=None))
    model = service.folder_name
    files = result_files(batch, "qa", model, f"{model}_qa")
    details = {"questions": question_path.name, "instruction": asks.instruction, "repeat": asks.times, "circular": asks.circular}
    asked = "" if batch.merge else service.model
    recipe = Recipe("qa", asked, "", sampling=batch.sampling(), max_pixels=batch.max_pixels, details=details)
    whole = asks.part(None, batch.shard)
    with service.run(asks.part(batch.limit, batch.shard), recipe, files) as finished:
        if batch.merge:
            check_same_run(finished.journal, details)
        facts = Facts(model, question_path, dataset_path, service.server_url, sheet.bad, options["tolerance"])
        published = publish_qa(finished.journal, whole, files, facts, batch.format, with_report=options["report"])
        publish_problems(finished.journal, whole, files)
        paths = {name: readable(path) if path else None for name, path in published.files}
        value = as_json(finished, files, **paths, metrics=published.metrics)
        write_json(files.summary, {"schema": 1, **value})
        call.say(as_text(finished, files, "answers", published.result))
        text = _text(published, wrong_ones(finished.journal, whole, facts.tolerance) if options["show_errors"] else ())
    if finished.error is not None and not call.speak_json:
        raise finished.error
    give(call, {"schema": 1, **value}, text)
    return exit_code(finished)


def _read(call: Call, questions: Path, dataset: Path, *, skip_bad: bool) -> Sheet:
    """
    Raises:
        OpsError: the file cannot be read; rows of it are bad.
    """
    from qwen_fp8_ops.client.batch.folder import check_folder
    from qwen_fp8_ops.client.batch.qa.questions import make_questions, refuse_bad
    from qwen_fp8_ops.client.batch.qa.tables import read_rows

    check_folder(dataset)
    sheet = make_questions(read_rows(questions), dataset)
    refuse_bad(sheet, questions, skip_bad=skip_bad)
    for row in sheet.bad:
        call.say(f"left out: {row}")
    return sheet


def _text(published: Published, wrong: Iterable[Verdict]) -> str:
    from qwen_fp8_ops.client.batch.folder import readable
    from qwen_fp8_ops.client.batch.qa.words import as_text, errors_as_text

    paths = "\n".join(f"{name.removesuffix('_file'):<8} {readable(path)}" for name, path in published.files if path)
    return "\n\n".join(part for part in (as_text(published.metrics), errors_as_text(wrong), paths) if part)
