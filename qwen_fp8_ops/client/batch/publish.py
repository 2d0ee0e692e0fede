"""Results as files that are whole at every moment: written beside, made safe, then put in place in one step. Rows are not gathered."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import make_folder, write_error

ROWS_A_GROUP = 1000


def write_object(path: Path, pairs: Iterable[tuple[str, Any]]) -> int:
    """One JSON object, a line for each pair; returns how many.

    Raises:
        OpsError: the folder refuses it; the old file is untouched.
    """
    count = 0
    with replacing(path) as file:
        file.write("{")
        for key, value in pairs:
            file.write(f"{',' if count else ''}\n {json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}")
            count += 1
        file.write("\n}\n" if count else "}\n")
    return count


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """JSON Lines; returns how many.

    Raises:
        OpsError: the folder refuses it; the old file is untouched.
    """
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> int:
    """A table; returns how many rows.

    Args:
        columns: name and type of each, in Arrow's words: string, int64, double, bool.

    Raises:
        OpsError: pyarrow is not installed (code ``no-pyarrow``); the folder refuses it, and then the old file is untouched.
    """
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    count = 0
    # pyarrow itself opens no path that is not UTF-8.
    with _put_in_place(path) as temporary, open(temporary, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


def require_pyarrow() -> None:
    """
    Raises:
        OpsError: it is not installed (code ``no-pyarrow``).
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise OpsError("Parquet is read and written with pyarrow, which is not installed here", code="no-pyarrow", fix="pip install 'qwen-fp8-ops[batch]'")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of ``path`` when the block ends well.

    Raises:
        OpsError: the folder refuses it; the old file is untouched.
    """
    # Half of a surrogate pair, which an answer may hold, is no Unicode and would end the whole file.
    with _put_in_place(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        yield file


@contextmanager
def _put_in_place(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of ``path`` when the block ends well."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append({name: _sound(value) for name, value in row.items()})
        if len(group) == ROWS_A_GROUP:
            yield group
            group = []
    if group:
        yield group


def _sound(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
