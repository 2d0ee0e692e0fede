"""Our stdout, where a name that is no text and a disk that is full are no tracebacks."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from qwen_fp8_ops.cli.common import nobody_reads
from qwen_fp8_ops.errors import OpsError

CANNOT_WRITE = "cannot-print"


class Stdout(io.TextIOWrapper):
    """A reader that went away raises BrokenPipeError as ever.

    Raises:
        OpsError: from ``write`` and ``flush``: what it leads to takes nothing, such as a file on a full disk (code ``CANNOT_WRITE``).
    """

    def write(self, text: str, /) -> int:
        with _explained():
            return super().write(text)

    def flush(self) -> None:
        with _explained():
            super().flush()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        nobody_reads()
        fix = "Look at where stdout leads to. What the command did is done, and nothing of it is lost."
        raise OpsError(f"The result cannot be printed: {error.strerror}", code=CANNOT_WRITE, fix=fix) from error


def explain_stdout() -> None:
    """From here on. Bytes of a file's name that are no text are shown by their escapes, which are JSON's too."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, by_lines = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = Stdout(sys.stdout.detach(), encoding=encoding, errors="backslashreplace", line_buffering=by_lines)
