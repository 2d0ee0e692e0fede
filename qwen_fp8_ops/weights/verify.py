"""Is the model folder whole? The fast look: names, sizes, times, headers. It reads no weights and takes under a second for 240 GB."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import move_away
from qwen_fp8_ops.weights import manifest as manifests
from qwen_fp8_ops.weights import tensors
from qwen_fp8_ops.weights.demo.recipe import LABEL, read_label
from qwen_fp8_ops.weights.headers import Header, HeaderError, missing_reason, read_header, stranger
from qwen_fp8_ops.weights.layout import INDEX, SINGLE, Layout, read_layout
from qwen_fp8_ops.weights.paper import Numbers, Quantisation
from qwen_fp8_ops.weights.verdict import Found, Verdict

READERS = 8
"""Headers that are read at once: what takes time is the way to a network file system and back."""

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""Files beside the weights that an engine reads where they are there."""

PARSED_BYTES = 4 << 20
"""JSON up to this size is parsed; of a larger one, the tokenizer, only the two ends are looked at."""

VERIFY = "qwen-fp8 verify"


def verify_fast(folder: Path, command: str = VERIFY) -> Verdict:
    """``command`` is how the user would call ``verify`` for this folder; remedies name it."""
    return look(folder, command).verdict()


def is_needed(file: str) -> bool:
    """Does an engine need the file to start? The README of a repository is verified as well, but nobody waits for it."""
    return file == "." or file in SMALL_FILES or file.endswith((".safetensors", INDEX))


def look(folder: Path, command: str = VERIFY) -> Found:
    """Everything that can be seen without reading the weights."""
    try:
        present = set(os.listdir(folder))
        os.stat(f"{folder}/.")  # a folder may show its names and still be closed
    except OSError as error:
        found = Found(folder, "./download_model.sh\nOr set MODEL_PATH to the folder that has the model.")
        found.bad(".", "is a file, not a folder" if isinstance(error, NotADirectoryError) else missing_reason(folder, error), "missing")
        return found
    found = Found(folder, f"{move_away(folder)}\nqwen-fp8 download --profile demo" if LABEL in present else f"{command} --repair")  # no Hub has the demo checkpoint
    config = _look_at_small_files(found)
    layout, headers = _look_at_shards(found, present)
    _look_at_tensors(found, config, layout, headers)
    _compare_with_manifest(found, command)
    _compare_with_label(found)
    return found


def _look_at_small_files(found: Found) -> Mapping[str, Any]:
    """config.json, or what could be had of it."""
    values = {name: _read_small_file(found, name) for name in SMALL_FILES if os.path.lexists(found.folder / name)}
    config = values.get("config.json")
    config = config if isinstance(config, dict) else {}
    for name in _needed(values, config):
        found.bad(name, "is missing", "missing")
    return config


def _needed(values: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Files that must be there and are not."""
    needed = ["config.json", "tokenizer_config.json"]
    if not {"vocab.json", "merges.txt"} <= values.keys():
        needed.append("tokenizer.json")
    if config.get("vision_config"):
        needed.append("preprocessor_config.json")
        if any("Qwen3VL" in str(name) for name in config.get("architectures") or ()):
            needed.append("video_preprocessor_config.json")
    return (name for name in needed if name not in values)


def _read_small_file(found: Found, name: str) -> Any:
    """The value of a JSON file; None for another one, and for one that is damaged."""
    status = _status(found, name)
    if status is None:
        return None
    try:
        with (found.folder / name).open("rb") as file:
            content = file.read(PARSED_BYTES + 1)
            if len(content) > PARSED_BYTES:
                file.seek(-64, os.SEEK_END)
                content = content[:64] + file.read()
    except OSError as error:
        _cannot_read(found, name, error)
        return None
    if problem := stranger(content[:64]):
        found.bad(name, problem)
    elif not content.strip(b"\0\t\r\n "):
        found.bad(name, "is empty")
    elif name.endswith(".json"):
        return _parse(found, name, content, status.st_size)
    return None


def _status(found: Found, name: str) -> os.stat_result | None:
    """Of a regular file, which is counted; anything else is told."""
    try:
        status = (found.folder / name).stat()
    except OSError as error:
        _cannot_read(found, name, error)
        return None
    if not stat.S_ISREG(status.st_mode):
        found.bad(name, "is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file")
        return None
    found.sizes[name] = status.st_size
    return status


def _parse(found: Found, name: str, content: bytes, size: int) -> Any:
    if size > PARSED_BYTES:
        if not (content.lstrip().startswith(b"{") and content.rstrip().endswith(b"}")):
            found.bad(name, "is no JSON, or cut short")
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        found.bad(name, f"is no JSON: {error}")
        return None
    if not isinstance(value, dict):
        found.bad(name, "is no JSON object")
    return value


def _cannot_read(found: Found, name: str, error: OSError) -> None:
    if isinstance(error, PermissionError):
        found.bad(name, missing_reason(found.folder / name, error), "unreadable", fix=f"chmod a+r {shlex.quote(str(found.folder / name))}")
    else:
        found.bad(name, missing_reason(found.folder / name, error), "missing" if isinstance(error, FileNotFoundError) else "broken")


def _look_at_shards(found: Found, present: set[str]) -> tuple[Layout, dict[str, Header]]:
    """The headers of those that are whole."""
    if INDEX in present and _status(found, INDEX) is None:
        return Layout((), None), {}
    try:
        layout = read_layout(found.folder)
    except OpsError as error:
        found.bad(INDEX, error.message.removeprefix(f"{found.folder / INDEX} "), fix=error.fix if error.code == "unreadable-file" else "")
        return Layout((), None), {}
    if not layout.shards:
        found.bad(INDEX if any(name.endswith(".safetensors") for name in present) else SINGLE, "is missing", "missing")
    headers: dict[str, Header] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for name, header in zip(layout.shards, pool.map(lambda name: _header(found.folder / name), layout.shards), strict=True):
            if isinstance(header, Header):
                headers[name] = header
                found.sizes[name] = header.file_bytes
            elif isinstance(header.__cause__, OSError):
                _cannot_read(found, name, header.__cause__)
            else:
                found.bad(name, header.problem)
    if layout.shards:
        for name in sorted(present - set(layout.shards)):
            if name.endswith(".safetensors"):
                found.bad(name, "is no part of this checkpoint: the index does not name it", "extra")
    return layout, headers


def _header(path: Path) -> Header | HeaderError:
    try:
        return read_header(path)
    except HeaderError as error:
        return error


def _look_at_tensors(found: Found, config: Mapping[str, Any], layout: Layout, headers: Mapping[str, Header]) -> None:
    for file, problem in tensors.index_faults(layout, headers):
        found.bad(file, problem)
    headers = {name: header for name, header in headers.items() if not found.is_bad(name)}
    if not config:
        return
    try:
        quantisation = Quantisation.of(Numbers(config, "config.json"))
    except OpsError as error:
        found.bad("config.json", error.message.removeprefix("config.json "))
        return
    for file, problem in tensors.scale_faults(quantisation, layout, headers):
        found.bad(file, problem)
    for file, problem in tensors.config_faults(config, layout, headers):
        found.bad(file, problem)


def _compare_with_manifest(found: Found, command: str) -> None:
    try:
        manifest = manifests.read(found.folder)
    except OpsError as error:
        found.bad(manifests.FILE, error.message.removeprefix(f"{found.folder / manifests.FILE} "), fix=error.fix)
        return
    if manifest is None:
        return
    for file in manifest.files:
        if _has_size(found, file.name, file.bytes) and not file.unchanged(found.folder):
            found.bad(file.name, "was changed after it was verified, or copied without its time", "stale", fix=command)
    if not manifest.complete:
        found.bad(manifests.FILE, "says that the download has not ended", "missing", fix="./download_model.sh")


def _compare_with_label(found: Found) -> None:
    label = read_label(found.folder)
    for name, size in label.files.items() if label else ():
        _has_size(found, name, size)


def _has_size(found: Found, name: str, size: int) -> bool:
    status = _status(found, name)
    if status and status.st_size != size:
        found.bad(name, f"has {status.st_size} bytes, and should have {size}")
    return status is not None and status.st_size == size
