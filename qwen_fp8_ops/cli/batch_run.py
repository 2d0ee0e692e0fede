"""What ``caption`` and ``qa`` do alike: reach the service, do what is not done, say how it went."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_fp8_ops.cli.batch_screen import screen_for
from qwen_fp8_ops.cli.batch_service import Service, service_of
from qwen_fp8_ops.cli.common import nobody_reads
from qwen_fp8_ops.client.batch.contact import Contact, make_contact
from qwen_fp8_ops.client.batch.files import ResultFiles, safe_name
from qwen_fp8_ops.client.batch.folder import readable
from qwen_fp8_ops.client.batch.inputs import Selection
from qwen_fp8_ops.client.batch.item import Inputs, Recipe
from qwen_fp8_ops.client.batch.journal import Journal
from qwen_fp8_ops.client.batch.kept import count_kept
from qwen_fp8_ops.client.batch.merge import merge_shards
from qwen_fp8_ops.client.batch.prepare import Sending
from qwen_fp8_ops.client.batch.run import RunOptions, carry_out
from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.client.request import Limits
from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.outside.files import MOVE_THE_RUN
from qwen_fp8_ops.report.words import duration

if TYPE_CHECKING:
    from qwen_fp8_ops.cli.batch_options import BatchOptions
    from qwen_fp8_ops.cli.common import Call

USUAL_CONCURRENCY = 8
"""To begin with, where the server's MAX_NUM_SEQS is not known."""


@dataclass
class Finished:
    """``journal`` is open for reading until the block ends. ``error``: why the run ended early, to be raised when what there is has
    been published. ``notes`` are for a person. ``not_again``: options that the command must not have when it is to go on from here.
    """

    journal: Journal
    tally: Tally
    error: OpsError | None = None
    notes: tuple[str, ...] = ()
    not_again: tuple[str, ...] = ()

    def same_command(self, *options: str) -> str:
        """How to go on: ``The same command without --overwrite and with --retry-failed``."""
        changes = [*(f"without {option}" for option in self.not_again), *(f"with {option}" for option in options)]
        return f"The same command {' and '.join(changes)}".rstrip()


class Batch:
    """One command's dealings with one service, which is reached when it is first needed."""

    def __init__(self, call: Call, options: BatchOptions) -> None:
        self._call, self._options = call, options
        self._reached: tuple[Service, Contact] | None = None
        # Pillow warns about odd metadata, from the threads of the pool, into the middle of the screen.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def _reach(self) -> tuple[Service, Contact]:
        """
        Raises:
            OpsError: there is no service, or it does not take requests.
        """
        if self._reached is None:
            options, service = self._options, service_of(self._call, self._options)
            limits = Limits(read_seconds=options.timeout)
            self._reached = service, make_contact(service.locate, limits=limits, patience_seconds=options.patience, say=self._call.say)
        return self._reached

    @property
    def model(self) -> str:
        """What the server is asked for."""
        return self._reach()[1].model(self._options.model, self._options.model_name)

    @property
    def folder_name(self) -> str:
        """The model's name in paths. To merge, the shares themselves tell it, where they are of one model."""
        options = self._options
        if options.merge and not options.model_name:
            found = {path.parent.name for path in options.output_dir.glob("*/*/*.shard-*-of-*.journal.jsonl")}
            if len(found) == 1:
                return found.pop()
        return safe_name(options.model_name or self.model)

    @property
    def server_url(self) -> str:
        """As it was given, else where the service was found; empty when nothing was asked."""
        return self._options.server_url or (self._reached[1].root.removesuffix("/v1") if self._reached else "")

    @contextmanager
    def run(self, inputs: Inputs, recipe: Recipe, files: ResultFiles) -> Iterator[Finished]:
        """Do what is not done, or with --merge put the shares together.

        Raises:
            OpsError: it could not begin. One that ended it early is in ``Finished.error``.
        """
        try:
            with self._merged(inputs, files) if self._options.merge else self._asked(inputs, recipe, files) as finished:
                if finished.error:
                    _name_output_dir(finished.error)
                yield finished
        except OpsError as error:
            _name_output_dir(error)
            raise

    @contextmanager
    def _asked(self, inputs: Inputs, recipe: Recipe, files: ResultFiles) -> Iterator[Finished]:
        service, _ = self._reach()
        with Journal(files.journal, recipe, overwrite=self._options.overwrite) as journal:
            finished = Finished(journal, Tally(), not_again=("--overwrite",) if self._options.overwrite else ())
            selection = Selection(inputs, self._options.shard, self._options.limit)
            with screen_for(finished.tally, self._call.say) as say:
                try:
                    carry_out(selection, recipe, journal, service.locate, self._run_options(service), finished.tally, say)
                except OpsError as error:
                    finished.error = error
            yield finished

    @contextmanager
    def _merged(self, inputs: Inputs, files: ResultFiles) -> Iterator[Finished]:
        overwrite = self._options.overwrite
        journal, absent = merge_shards(files, overwrite=overwrite)
        with journal:
            tally = Tally()
            count_kept(journal, Selection(inputs, None, self._options.limit), tally)
            notes = tuple(f"Share {shard.number}/{shard.of} has left nothing here." for shard in absent)
            yield Finished(journal, tally, notes=notes, not_again=("--merge", "--overwrite") if overwrite else ("--merge",))

    def _run_options(self, service: Service) -> RunOptions:
        options, target = self._options, service.target
        return RunOptions(
            concurrency=options.concurrency,
            start=(target.max_num_seqs if target else None) or USUAL_CONCURRENCY,
            retry_failed=options.retry_failed,
            patience_seconds=options.patience,
            ends_at=_job_ends_at(os.environ.get("SLURM_JOB_END_TIME", "")),
            limits=Limits(read_seconds=options.timeout),
            sending=Sending(target.media, target.body_limit_bytes) if target else Sending(),
        )


def result_files(batch: BatchOptions, kind: str, name: str, stem: str) -> ResultFiles:
    """``output/captions/<model>/<stem>...``"""
    return ResultFiles(batch.output_dir / kind / name, stem, batch.shard)


def _name_output_dir(error: OpsError) -> None:
    """Results do not lie where the service's files do, and QWEN_FP8_HOME would not move them."""
    error.fix = error.fix.replace(MOVE_THE_RUN, ". The same command then goes on, without --overwrite; in another --output-dir it would begin anew.")


def _job_ends_at(text: str) -> float | None:
    """SLURM tells a job's end in its environment, in seconds of the epoch. One that is over is not the one we run in: a terminal that was
    begun in it keeps its environment.
    """
    return float(text) if text.isdecimal() and float(text) > time.time() else None


def give(call: Call, value: dict[str, Any], text: str) -> None:
    """As ``call.give``; but a reader that went away does not change how the run ended, nor its exit code."""
    try:
        call.give(value, text)
    except BrokenPipeError:
        nobody_reads()


def as_json(finished: Finished, files: ResultFiles, **more: Any) -> dict[str, Any]:
    """One run's numbers, for --json and for the summary file."""
    return {
        "ok": exit_code(finished) is ExitCode.DONE,
        **more,
        "journal": readable(files.journal),
        "problems_file": readable(files.problems) if files.problems.exists() else None,
        **finished.tally.as_json(),
        "error": finished.error.as_json() if finished.error else None,
    }


def as_text(finished: Finished, files: ResultFiles, what: str, result: Path) -> str:
    """The same for a person.

    Args:
        what: what was made, such as ``captions (simple)``.
    """
    tally = finished.tally
    asked = tally.answered + tally.failed
    lines = [f"{tally.done - tally.all_failed - tally.empty} {what}" + (f" of {tally.total}" if tally.total is not None else "") + f": {readable(result)}"]
    if asked:
        lines.append(
            f"  {asked} asked in {duration(tally.seconds)}: {asked / tally.seconds:.1f} items/s, {tally.completion_tokens / tally.seconds:.0f} tokens/s"
        )
    if tally.kept:
        lines.append(f"  {tally.kept} done before")
    if tally.all_failed:
        codes = ", ".join(f"{count} {code}" for code, count in tally.problems.most_common(5))
        lines.append(f"  {tally.all_failed} failed ({codes}). {finished.same_command('--retry-failed')} asks for these again.")
    if tally.truncated:
        spent = f"; {tally.empty} answers are empty: thinking took every token" if tally.empty else ""
        lines.append(f"  {tally.truncated} cut by the token limit{spent}. Allow more: --max-tokens N --overwrite")
    elif tally.empty:
        lines.append(f"  {tally.empty} came back empty")
    if files.problems.exists() and (tally.all_failed or tally.truncated or tally.empty):
        lines.append(f"  Which ones: {readable(files.problems)}")
    if tally.missing:
        lines.append(f"  {tally.missing} not done yet. {finished.same_command()} goes on from here.")
    return "\n".join([*lines, *(f"  {note}" for note in finished.notes)])


def exit_code(finished: Finished) -> ExitCode:
    if finished.error is not None:
        return finished.error.exit_code
    if finished.tally.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if finished.tally.all_failed or finished.tally.missing else ExitCode.DONE
