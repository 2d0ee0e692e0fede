"""The text of settings: reading a file of ``KEY=value`` lines, writing one such line, showing a value to a person.

Files are read by python-dotenv's parser and never run by a shell. A leading byte order mark, Windows line ends, ``export``, quotes
and comments are understood. Nothing is expanded.
"""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import Binding, parse_stream

LARGEST_BYTES = 1 << 20
"""No settings file is as large: it is the wrong file, and need not be read to its end."""

SECRET = re.compile(r"(?i)\b((?:[\w-]*(?:key|token|password|secret))[=:\s]+|bearer\s+|hf_|sk-|ghp_)\S+")


@dataclass(frozen=True)
class Entry:
    """One value that was given, before it is checked; ``problem`` says why the line could not even be read."""

    origin: str
    key: str = ""
    text: str = ""
    problem: str = ""


def read_env_file(path: Path, name: str) -> Iterator[Entry]:
    """What stands in a file, in its order; a file that cannot be read is one entry with a problem.

    Args:
        name: what the file is called in origins: ``config.env`` gives ``config.env line 3``.
    """
    try:
        text = _text(path)
    except UnicodeDecodeError as error:
        yield Entry(name, problem=f"not UTF-8 text (byte {error.start})")
        return
    except OSError as error:
        yield Entry(name, problem=f"cannot be read: {error.strerror or error}")
        return
    first_lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        line = _line_number(binding)
        origin = f"{name} line {line}"
        if binding.error:
            yield Entry(origin, problem=f"not of the form KEY=value: {shown(binding.original.string.strip())}")
        elif binding.key is None:
            continue
        elif binding.value is None:
            yield Entry(origin, problem=f"{shown(binding.key)} has no =value")
        elif binding.key in first_lines:
            yield Entry(origin, problem=f"{shown(binding.key)} stands twice; it is first given in line {first_lines[binding.key]}")
        else:
            first_lines[binding.key] = line
            yield Entry(origin, binding.key, binding.value)


def _text(path: Path) -> str:
    """
    Raises:
        OSError: it cannot be read, or is none of the files that one would write settings into.
        UnicodeDecodeError: it is not UTF-8.
    """
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise OSError("a pipe, not a file")  # opening it could wait for ever
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise OSError("larger than 1 MiB, so it is no settings file")
    # One form of line end, for the parser counts a lone carriage return differently in some places.
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _line_number(binding: Binding) -> int:
    """The line that holds the key; the parser counts from the blank lines before it."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + blank.count("\n")


def env_line(key: str, text: str) -> str:
    """``KEY=text``, with quotes where the parser needs them to read the same text back."""
    if text == "" or re.fullmatch(r"[^\s#'\"\\`$]([^#'\"\\]*[^\s#'\"\\])?", text):
        return f"{key}={text}"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def shown(text: str, most: int = 80) -> str:
    """A text from outside, fit for a message: short, without control characters, and without what looks like a secret."""
    text = SECRET.sub(r"\1***", text)
    text = "".join(character if character.isprintable() else character.encode("unicode_escape").decode("ascii") for character in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."
