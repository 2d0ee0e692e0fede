"""Rows of a question file: parquet, JSON Lines, a JSON list or CSV, told apart by what is in it. Nothing is judged here.

Rows are counted from 1, without a CSV's header; those of JSON Lines are lines of the file, as an editor counts them.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qwen_fp8_ops.errors import ConfigError, OpsError

COLUMNS = ("qid", "question", "answer", "image", "choices", "options", "category", "source")
NEEDED = ("qid", "question", "answer", "image")
LONGEST_FIELD = 1 << 27
ROWS_AT_ONCE = 1000
EXTRA = "pip install 'qwen-fp8-ops[batch]'"


class RowError(ValueError):
    """Why no question can be made of a row, for people; begins with a small letter."""


def is_nothing(value: Any) -> bool:
    """None, or the NaN that pandas has in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


@dataclass(frozen=True, slots=True)
class Row:
    """``values`` has those of ``COLUMNS`` that the file has; ``fault`` says why a row could not be read."""

    number: int
    values: dict[str, Any]
    fault: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """
    Raises:
        ConfigError: there is no such file (``no-such-file``), or a column is missing (``no-such-column``).
        OpsError: it cannot be read, is damaged, or needs a package that is not installed (``missing-package``).
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}", code="no-such-file", fix="Give the questions with --question-path FILE.") from error
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}", code="unreadable-file", fix="Give a file: parquet, JSON Lines or CSV.") from error
    if head.startswith(b"PAR1"):
        yield from _parquet(path)
        return
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise _damaged(path, "it is empty")
    read = _json_lines if start.startswith(b"{") else _json_list if start.startswith(b"[") else _csv
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _with_columns(path, read(path, file))
    except UnicodeDecodeError as error:
        raise _damaged(path, f"it is not UTF-8 text (byte {error.start} of a part)") from error
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}", code="unreadable-file") from error


def _with_columns(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Checks the columns on the first row that could be read; a row of JSON may leave out what it has no value for."""
    waiting: list[Row] = []
    for row in rows:
        waiting.append(row)
        if not row.fault:
            _check_columns(path, list(row.values))
            break
    for row in itertools.chain(waiting, rows):
        yield Row(row.number, {name: row.values[name] for name in COLUMNS if name in row.values}, row.fault)


def _check_columns(path: Path, present: list[str]) -> None:
    missing = [name for name in NEEDED if name not in present]
    if missing:
        raise ConfigError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, present))[:300]}",
            code="no-such-column",
            fix=f"Needed are {', '.join(NEEDED)}; choices, category and source may be there.",
        )


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise OpsError(
            f"{path} is parquet, which needs pyarrow ({error})", code="missing-package", fix=f"{EXTRA}\nOr give the questions as JSON Lines or CSV."
        ) from error
    done = 0
    try:
        # pyarrow itself opens no path that is not UTF-8.
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            present = [name for name in file.schema_arrow.names if name in COLUMNS]
            _check_columns(path, present if set(NEEDED) <= set(present) else file.schema_arrow.names)
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=present):
                for number, values in enumerate(batch.to_pylist(), start=done + 1):
                    yield Row(number, values)
                done += batch.num_rows
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _json_lines(_path: Path, file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, {}, f"it is not JSON: {error}")
    return Row(number, value) if isinstance(value, dict) else Row(number, {}, "it is not a JSON object")


def _json_list(path: Path, file: IO[str]) -> Iterator[Row]:
    try:
        values = json.load(file)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON: {error}") from error
    for number, value in enumerate(values, start=1):
        yield Row(number, value) if isinstance(value, dict) else Row(number, {}, "it is not a JSON object")


def _csv(path: Path, file: IO[str]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        _check_columns(path, list(reader.fieldnames or []))
        for number, values in enumerate(reader, start=1):
            surplus = values.pop(None, None)  # DictReader's name for fields beyond the header
            lacking = [name for name, value in values.items() if value is None]
            fault = "it has more fields than the header" if surplus else "it has fewer fields than the header" if lacking else ""
            yield Row(number, values, fault)
    except csv.Error as error:
        raise _damaged(path, f"line {reader.line_num}: {error}") from error


def _damaged(path: Path, why: str) -> OpsError:
    return OpsError(f"{path} cannot be read: {why}", code="damaged-file", fix="Questions are read from parquet, JSON Lines and CSV (UTF-8).")
