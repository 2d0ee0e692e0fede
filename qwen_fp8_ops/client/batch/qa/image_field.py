"""The image column of a question: a path, several in a list or a numpy array, or a list that was written as text into a CSV file."""

from __future__ import annotations

import os.path
import re
from typing import Any

from qwen_fp8_ops.client.batch.qa.tables import RowError, is_nothing
from qwen_fp8_ops.client.media_files import URL

LIST = re.compile(r"\s*(?:array\()?\s*\[(?P<inside>.*)\]\s*(?:,\s*dtype=\w+\s*\))?\s*", re.DOTALL)
QUOTED = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*,?""")


def image_paths(value: Any) -> tuple[str, ...]:
    """The paths as the file has them, at least one.

    Raises:
        RowError: there is none, or it is something else than paths within the data set's folder; the message is for people.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        value = _written(value)
    if isinstance(value, dict):
        value = [value]
    if is_nothing(value) or (isinstance(value, (list, tuple)) and not value):
        raise RowError("it has no image")
    if not isinstance(value, (list, tuple)):
        raise RowError(f"its image is {_shown(value)}, and must be a path or a list of paths")
    return tuple(_checked(path) for path in value)


def _written(text: str) -> list[str]:
    """One path, or a list as JSON, Python or numpy print it (numpy without commas)."""
    found = LIST.fullmatch(text)
    if not found:
        return [text] if text.strip() else []
    quoted = [*QUOTED.finditer(found["inside"])]
    whole = "".join(one[0] for one in quoted) == found["inside"].rstrip()
    return [one[1] if one[1] is not None else one[2] for one in quoted] if whole else [text]


def _checked(path: Any) -> str:
    if isinstance(path, dict):  # the Image feature of Hugging Face's data sets
        if path.get("bytes") is not None:
            raise RowError("its image stands in the file itself; write the images into files and name their paths")
        path = path.get("path")
    if isinstance(path, (bytes, bytearray)):
        raise RowError("its image stands in the file itself; write the images into files and name their paths")
    if not isinstance(path, str) or not path.strip():
        raise RowError(f"its image is {_shown(path)}, and must be a path")
    if "\0" in path:
        raise RowError(f"its image's path {_shown(path)} holds a zero byte")
    if URL.match(path):
        raise RowError(f"its image is the address {_shown(path)}; fetch it, and name the file")
    return path


def within(folder: str, path: str) -> str | None:
    """Where ``path`` is when it is one of ``folder``; None when it leaves it. A question file from elsewhere must not name any file of ours."""
    place = os.path.normpath(os.path.join(folder, path))
    inside = os.path.join(os.path.normpath(folder), "")
    return place if place.startswith(inside) else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
