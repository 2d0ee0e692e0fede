"""The page that shows what went wrong: every wrong answer with its images, in one file that needs nothing else.

All text on it is somebody else's, the model's above all. It is escaped, kept in boxes of its own direction, and the page forbids every
script and every address (Content-Security-Policy), so that an answer can at most look odd. Images are decoded and encoded anew.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qwen_fp8_ops.client.batch.images import fit
from qwen_fp8_ops.client.batch.qa.image_field import within
from qwen_fp8_ops.client.batch.qa.verdicts import Verdict
from qwen_fp8_ops.client.media_files import MediaError, open_media

SIDE_PIXELS = 480
MOST_SHOWN = 300
"""Questions on a page; a browser still opens that many images."""
MOST_IMAGES = 8
LONGEST_TEXT = 6000

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif } body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884 }
td:first-child, th:first-child { text-align: left } article { border: 1px solid #8886; border-radius: .5rem; padding: 1rem; margin: 1rem 0 }
img { max-width: 100%; max-height: 20rem; margin: .2rem; image-rendering: auto; background: #fff } h2 { margin: 0; font-size: 1rem } .muted { opacity: .7 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8882; padding: .6rem; border-radius: .3rem; unicode-bidi: isolate; max-height: 30rem; overflow: auto }
.right { color: #187a2f } .wrong { color: #b3261e } ol { list-style: upper-alpha } summary { cursor: pointer }
"""


def page(metrics: dict[str, Any], wrong: Iterable[Verdict], dataset: Path) -> Iterator[str]:
    """The page in pieces, images made one after the other.

    Args:
        metrics: the object of the metrics file.
        wrong: what is shown; at most ``MOST_SHOWN`` of them are.
        dataset: the folder that the images' paths begin at.
    """
    title = f"QA of {metrics['model']}"
    yield f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n<title>{_text(title)}</title>\n'
    yield f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
    yield _summary(metrics)
    for name, key in (("Category", "category_metrics"), ("Source", "source_metrics")):
        yield _table(name, metrics[key])
    shown = 0
    for verdict in wrong:
        if shown == MOST_SHOWN:
            break
        shown += 1
        yield _article(verdict, dataset)
    rest = metrics["total_questions"] - metrics["correct_answers"] - shown
    if rest > 0:
        yield f'<p class="muted">{rest} more are in the results file.</p>\n'
    yield "</body>\n</html>\n"


def _summary(metrics: dict[str, Any]) -> str:
    interval = metrics["confidence_interval"]
    words = (
        f"{metrics['correct_answers']} of {metrics['total_questions']} right: {_percent(metrics['overall_accuracy'])}"
        f" (95 % confidence: {_percent(interval['low'])} to {_percent(interval['high'])})."
        f" {metrics['wrong']} wrong, {metrics['not_extracted']} without a readable answer, {metrics['errors']} failed, {metrics['truncated']} cut by the token limit."
    )
    return f'<p>{_text(words)}</p>\n<p class="muted">{_text(metrics["question_path"])}</p>\n'


def _table(name: str, groups: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{_text(group)}</td><td>{one['total']}</td><td>{one['correct']}</td><td>{_percent(one['accuracy'])}</td>"
        f"<td>{_percent(one['confidence_interval'][0])} to {_percent(one['confidence_interval'][1])}</td><td>{one['not_extracted']}</td><td>{one['errors']}</td></tr>\n"
        for group, one in groups.items()
    ]
    head = f"<tr><th>{name}</th><th>Questions</th><th>Right</th><th>Accuracy</th><th>95 %</th><th>Not read</th><th>Failed</th></tr>\n"
    return f"<table>\n{head}{''.join(rows)}</table>\n"


def _article(verdict: Verdict, dataset: Path) -> str:
    question, given = verdict.question, verdict.shown
    label = ", ".join(part for part in (question.category, question.source) if part)
    options = "".join(f"<li>{_text(text)}</li>" for text in question.told)
    true = f"{question.letter}" if question.letter else question.answer
    said = verdict.said if verdict.said is not None else f"none ({verdict.why})"
    parts = [
        f'<article>\n<h2>{_text(question.qid)} <span class="muted">{_text(label)}</span></h2>\n',
        "".join(_image(path, dataset) for path in question.images[:MOST_IMAGES]),
        f'<pre dir="auto">{_text(question.stem)}</pre>\n{f"<ol>{options}</ol>" if options else ""}\n',
        f'<p>True: <b class="right">{_text(true)}</b>. Said: <b class="wrong">{_text(said)}</b>{"; cut by the token limit" if verdict.truncated else ""}.</p>\n',
    ]
    if verdict.failure:
        parts.append(f'<p class="wrong">{_text(verdict.failure.message)}</p>\n')
    elif given:
        parts.append(f'<pre dir="auto">{_text(given.outcome.answer.strip())}</pre>\n')
        if given.outcome.reasoning:
            parts.append(f'<details><summary>Thinking</summary><pre dir="auto">{_text(given.outcome.reasoning.strip())}</pre></details>\n')
    if len(verdict.given) > 1:
        runs = "".join(
            f"<tr><td>rotation {one.ask.rotation}, time {one.ask.time}</td><td>{_text(one.ask.letter or '')}</td><td>{_text(one.said or one.why)}</td></tr>"
            for one in verdict.given
        )
        parts.append(f"<details><summary>All requests</summary><table><tr><th></th><th>True</th><th>Said</th></tr>{runs}</table></details>\n")
    return "".join([*parts, "</article>\n"])


def _image(path: str, dataset: Path) -> str:
    """A small copy within the page; where there is none, its name and why."""
    place = within(str(dataset.absolute()), path)
    try:
        data = _small(Path(place), path) if place else None
    except (MediaError, OSError) as error:
        return f'<p class="muted">{_text(path)}: {_text(error.message if isinstance(error, MediaError) else error.strerror or error)}</p>\n'
    if data is None:
        return ""
    return f'<img alt="{_text(path)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode("ascii")}">\n'


def _small(place: Path, name: str) -> bytes:
    """JPEG bytes made by us: nothing of the file's own bytes reaches the page.

    Raises:
        MediaError: it is no image that can be read.
        OSError: reading it fails.
    """
    from PIL import Image

    with open_media(place) as file:
        fitted = fit(file.read(), name, SIDE_PIXELS * SIDE_PIXELS * 4)
    with Image.open(io.BytesIO(fitted.data)) as image:
        image.draft("RGB", (SIDE_PIXELS, SIDE_PIXELS))
        small = image.convert("RGB")
        small.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def _text(value: object) -> str:
    """Escaped, without letters that HTML forbids, at a length that a page can bear."""
    text = str(value)
    text = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1000]}\n[... {len(text) - LONGEST_TEXT} letters ...]\n{text[-1000:]}"
    safe = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
    return html.escape(safe, quote=True)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
