"""The header of a safetensors file: what is in it, without reading the weights.

The file is a length (8 bytes, little endian), that many bytes of JSON, then the tensors' bytes without a gap. The rules are those
of the safetensors library, so what passes here opens there; the reasons are told for people.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qwen_fp8_ops.errors import OpsError

LENGTH_BYTES = 8
LONGEST_HEADER_BYTES = 100_000_000
"""The library's own limit."""

DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}

STRANGERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: it was cloned without LFS",
    b"<!doctype html": "is a web page, not the file itself: a proxy or a login page answered in the Hub's place",
    b"<html": "is a web page, not the file itself: a proxy or a login page answered in the Hub's place",
}
"""What is found in the place of weights, by its first bytes in lower case."""


class HeaderError(OpsError):
    """``problem`` is the message without the file's path."""

    default_code = "bad-weights-file"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}", fix="qwen-fp8 verify --repair")
        self.path = path
        self.problem = problem


class TensorInfo(NamedTuple):
    """``begin`` and ``end`` are bytes from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.begin

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """``data_start`` is where the first tensor begins, in bytes from the file's start."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    file_bytes: int


class _MalformedError(Exception):
    """What is wrong with the header, before it is known in which file."""


def read_header(path: Path) -> Header:
    """
    Raises:
        HeaderError: it is no whole safetensors file, for whatever reason: missing, unreadable, cut short, something else.
    """
    try:
        text, data_start, file_bytes = _read_text(path)
        tensors, metadata = _parse(text)
        _check_layout(tensors, file_bytes - data_start)
    except _MalformedError as error:
        raise HeaderError(path, str(error)) from None
    except OSError as error:
        raise HeaderError(path, missing_reason(path, error)) from error
    return Header(tensors, metadata, data_start, file_bytes)


def missing_reason(path: Path, error: OSError) -> str:
    """Why a file could not be opened or read, as a problem of that file."""
    if isinstance(error, FileNotFoundError):
        return f"is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "is missing"
    return f"cannot be read: {error.strerror or error}"


def stranger(start: bytes) -> str:
    """What stands in the place of a file that begins so, as a problem of it; empty when it is nothing known."""
    return next((problem for mark, problem in STRANGERS.items() if start.lower().startswith(mark)), "")


def _read_text(path: Path) -> tuple[bytes, int, int]:
    """The JSON, where it ends, and where the file ends."""
    # Not blocking: a named pipe in a file's place would keep us waiting for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        return *_header_text(descriptor, status), status.st_size
    finally:
        os.close(descriptor)


def _header_text(descriptor: int, status: os.stat_result) -> tuple[bytes, int]:
    if not stat.S_ISREG(status.st_mode):
        raise _MalformedError(f"is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no regular file'}")
    start = os.pread(descriptor, 64, 0)
    if not start:
        raise _MalformedError("is empty")
    if problem := stranger(start):
        raise _MalformedError(problem)
    if not any(start):
        raise _MalformedError("begins with zeros: its place was taken on the disk, but it was not written")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or start[LENGTH_BYTES : LENGTH_BYTES + 1] not in (b"", b"{"):
        raise _MalformedError("is no safetensors file")
    if length > LONGEST_HEADER_BYTES:
        raise _MalformedError(f"has a header of {length} bytes, more than the {LONGEST_HEADER_BYTES} that are allowed")
    end = LENGTH_BYTES + length
    if end > status.st_size:
        raise _MalformedError(f"is cut short: its header ends at byte {end}, the file at {status.st_size}")
    text = b""
    while len(text) < length:  # a read may give less than asked, on network file systems above all
        part = os.pread(descriptor, length - len(text), LENGTH_BYTES + len(text))
        if not part:
            raise _MalformedError(f"is cut short: it ended at byte {LENGTH_BYTES + len(text)}, within its header")
        text += part
    return text, end


def _parse(text: bytes) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise _MalformedError(f"has a header that is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _MalformedError("has a header that is no JSON object")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(word, str) for word in metadata.values()):
        raise _MalformedError("has a header whose __metadata__ is no table of texts")
    return {name: _tensor(name, entry) for name, entry in value.items()}, metadata


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _MalformedError(f"has a header that holds {twice!a} twice")
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _tensor(name: str, entry: Any) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = DTYPE_BITS[dtype]
        numbers = {type(begin), type(end), *map(type, shape)}
        sound = isinstance(shape, list) and numbers == {int} and 0 <= begin <= end and min(shape, default=0) >= 0
    except KeyError as error:
        raise _MalformedError(f"has a header whose tensor {name!a} has {'no' if error.args[0] in _FIELDS else 'an unknown dtype'} {error}") from None
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise _MalformedError(f"has a header whose tensor {name!a} has no valid dtype, shape and offsets")
    if not name.isascii() and any("\ud800" <= sign <= "\udfff" for sign in name):
        raise _MalformedError(f"has a header whose tensor {name!a} has a name that is no text")
    if bits * math.prod(shape) != 8 * (end - begin):
        raise _MalformedError(f"has a header whose tensor {name!a} takes {end - begin} bytes, and {dtype} {shape} another number")
    return TensorInfo(dtype, tuple(shape), begin, end)


_FIELDS = ("dtype", "shape", "data_offsets")


def _check_layout(tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """Each tensor begins where the one before it ends, and the last ends with the file."""
    position = 0
    for begin, end, name in sorted((info.begin, info.end, name) for name, info in tensors.items()):
        if begin != position:
            fault = "overlaps the one before it" if begin < position else f"leaves a gap of {begin - position} bytes"
            raise _MalformedError(f"has a header whose tensor {name!a} {fault}")
        position = end
    if data_bytes < position:
        raise _MalformedError(f"is cut short: {position - data_bytes} of {position} bytes of weights are missing")
    if data_bytes > position:
        raise _MalformedError(f"has {data_bytes - position} bytes more than its header accounts for")
