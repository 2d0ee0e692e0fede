"""What ``verify`` found, for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.words import duration
from qwen_fp8_ops.weights.hashing import Progress
from qwen_fp8_ops.weights.repair import Repaired
from qwen_fp8_ops.weights.room import gigabytes
from qwen_fp8_ops.weights.verdict import Verdict

REFERENCES = {
    "manifest": "every byte as the manifest has it",
    "hub": "every byte as on the Hub",
    "recipe": "every byte as it was made",
    "nothing": "every byte could be read; there was nothing to compare it with",
}


def render_verdict(verdict: Verdict, repaired: Iterable[Repaired] = ()) -> str:
    return "\n".join([*_repairs(repaired), *_found(verdict)])


def _repairs(repaired: Iterable[Repaired]) -> Iterator[str]:
    for done in repaired:
        if done.failure:
            yield f"not repaired  {done.file}: {done.failure.message}"
            yield from (f"              {line}" for line in done.failure.fix.splitlines())
        elif done.kept:
            yield f"put aside     {done.file}, as {done.kept}"
        else:
            yield f"repaired      {done.file}"


def _found(verdict: Verdict) -> Iterator[str]:
    for bad in verdict.bad:
        yield f"BAD  {bad}" if bad.file != "." else f"BAD  {verdict.folder} {bad.problem}"
    for fix in dict.fromkeys(bad.fix for bad in verdict.bad):
        yield from (f"     {line}" for line in fix.splitlines())
    yield from verdict.notes
    size = f"{verdict.files} files, {gigabytes(verdict.size_bytes)}"
    if verdict.bad:
        count = len(verdict.bad)
        yield f"{'One file is' if count == 1 else f'{count} files are'} not as {'it' if count == 1 else 'they'} should be ({size} in {verdict.folder})."
    elif verdict.hashed:
        yield f"Whole: {size} in {verdict.folder}, {REFERENCES[verdict.compared_with]}."
    else:
        yield f"Whole: {size} in {verdict.folder}, by names, sizes and headers. Without --fast every byte is read."


class HashingLine:
    """The progress of hashing in words; the rate is that of all the time so far."""

    def __init__(self) -> None:
        self._began = clock.monotonic()

    def text(self, progress: Progress) -> str:
        seconds = max(clock.monotonic() - self._began, 1e-3)
        rate = progress.done_bytes / seconds
        line = f"hashing, {gigabytes(progress.done_bytes)} of {gigabytes(progress.total_bytes)}, {progress.done_files} of {progress.files} files, {gigabytes(round(rate))}/s"
        left = progress.total_bytes - progress.done_bytes
        return f"{line}, about {duration(left / rate)} left" if rate and left and seconds > 1 else line
