"""Every way in which a safetensors header can be wrong, and what the real library says to the same files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.weights.headers import HeaderError, TensorInfo, read_header
from tests.weights.shards import entries, header_bytes, write_shard

TENSORS = entries({"a": ("BF16", [2, 3]), "b": ("F8_E4M3", [4]), "c": ("F32", []), "none": ("F32", [0, 7])})


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_shard(path, TENSORS)
    return path


def test_a_header_is_read(shard: Path) -> None:
    header = read_header(shard)
    assert header.tensors == {
        "a": TensorInfo("BF16", (2, 3), 0, 12),
        "b": TensorInfo("F8_E4M3", (4,), 12, 16),
        "c": TensorInfo("F32", (), 16, 20),
        "none": TensorInfo("F32", (0, 7), 20, 20),
    }
    assert header.tensors["a"].bytes == 12
    assert header.tensors["a"].elements == 6
    assert header.data_start + 20 == header.file_bytes == shard.stat().st_size
    assert header.metadata == {}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    library.save_file({"ä": numpy.ones((3, 5), numpy.float16), "b": numpy.zeros((), numpy.int64)}, path, metadata={"format": "np"})
    header = read_header(path)
    assert {name: (info.dtype, info.shape) for name, info in header.tensors.items()} == {"ä": ("F16", (3, 5)), "b": ("I64", ())}
    assert header.metadata == {"format": "np"}


def rewritten(change: Callable[[dict[str, Any]], Any]) -> bytes:
    value = json.loads(json.dumps(TENSORS))
    return header_bytes(change(value) or value) + bytes(20)


def with_entry(**fields: Any) -> bytes:
    return rewritten(lambda header: header["a"].update(fields))


def text(content: bytes) -> bytes:
    """A header of just this text."""
    return len(content).to_bytes(8, "little") + content


RAW = header_bytes(TENSORS) + bytes(20)
DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "three bytes": (b"\x05\x00\x00", "is no safetensors file"),
    "cut within the header": (RAW[:40], "is cut short: its header ends at byte"),
    "cut within the weights": (RAW[:-1], "is cut short: 1 of 20 bytes of weights are missing"),
    "longer than its header says": (RAW + b"xx", "has 2 bytes more than its header accounts for"),
    "huge header": ((1 << 62).to_bytes(8, "little") + b"{}" + bytes(100), "more than the 100000000 that are allowed"),
    "header longer than the file": ((99_000_000).to_bytes(8, "little") + b"{}" + bytes(100), "is cut short"),
    "no header": (bytes(8) + b"{}", "not JSON"),
    "zeros": (bytes(4096), "begins with zeros"),
    "not JSON": (text(b"{nope}"), "not JSON"),
    "not UTF-8": (text(b'{"\xff":{}}'), "not JSON"),
    "deep nesting": (text(b'{"a":' + b"[" * 399_995), "not JSON"),
    "NaN": (text(b'{"a": NaN}'), "not JSON"),
    "a number of 5000 digits": (text(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
    "a list": (text(b"[{}]"), "is no safetensors file"),
    "a tensor that is a number": (rewritten(lambda header: {**header, "a": 5}), "tensor 'a' has no valid dtype, shape and offsets"),
    "metadata of numbers": (rewritten(lambda header: {**header, "__metadata__": {"format": 1}}), "__metadata__"),
    "metadata that is a list": (rewritten(lambda header: {**header, "__metadata__": []}), "__metadata__"),
    "unknown dtype": (with_entry(dtype="F7"), "an unknown dtype 'F7'"),
    "dtype that is a list": (with_entry(dtype=[]), "no valid dtype, shape and offsets"),
    "no shape": (rewritten(lambda header: header["a"].pop("shape") and None), "has no 'shape'"),
    "negative shape": (with_entry(shape=[-2, -3]), "no valid dtype, shape and offsets"),
    "shape of booleans": (with_entry(shape=[True, 6]), "no valid dtype, shape and offsets"),
    "shape of floats": (with_entry(shape=[2.0, 3.0]), "no valid dtype, shape and offsets"),
    "shape that is a text": (with_entry(shape="23"), "no valid dtype, shape and offsets"),
    "shape and bytes disagree": (with_entry(shape=[2, 4]), "takes 12 bytes, and BF16"),
    "dtype and bytes disagree": (with_entry(dtype="F32"), "takes 12 bytes, and F32"),
    "three offsets": (with_entry(data_offsets=[0, 6, 12]), "no valid dtype, shape and offsets"),
    "offsets the wrong way": (with_entry(data_offsets=[12, 0]), "no valid dtype, shape and offsets"),
    "negative offsets": (with_entry(data_offsets=[-12, 0]), "no valid dtype, shape and offsets"),
    "overlap": (with_entry(shape=[8], data_offsets=[0, 16]), "tensor 'b' overlaps the one before it"),
    "gap": (with_entry(shape=[5], data_offsets=[2, 12]), "tensor 'a' leaves a gap of 2 bytes"),
    "offsets beyond the file": (rewritten(lambda header: header["none"].update(shape=[1000], data_offsets=[20, 4020])), "4000 of 4020 bytes of weights are missing"),
    "a name twice": (text(b'{"a":{},"a":{}}'), "holds 'a' twice"),
    "a field twice": (text(b'{"a":{"shape":1,"shape":1}}'), "holds 'shape' twice"),
    "half a letter for a name": (header_bytes({"\ud800": TENSORS["a"]}) + bytes(12), "a name that is no text"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "is a Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html>Please log in</html>", "is a web page"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told(damage: str, tmp_path: Path) -> None:
    content, said = DAMAGE[damage]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(HeaderError) as told:
        read_header(path)
    assert said in told.value.problem
    assert told.value.message == f"{path} {told.value.problem}"
    assert told.value.message.isprintable()


@pytest.mark.parametrize("damage", [damage for damage in DAMAGE if "twice" not in damage and "metadata" not in damage and damage != "half a letter for a name"])
def test_the_library_refuses_the_same_files(damage: str, tmp_path: Path) -> None:
    """Twice-named tensors and odd metadata it may take; nothing that we let pass does it refuse, see below."""
    library = pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(DAMAGE[damage][0])
    with pytest.raises((library.SafetensorError, OSError)), library.safe_open(path, "np"):
        pass


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    said = {}
    for name in ("folder", "pipe", "link", "loop", "missing"):
        with pytest.raises(HeaderError) as told:
            read_header(tmp_path / name)
        said[name] = told.value.problem
    assert said == {
        "folder": "is a folder",
        "pipe": "is no regular file",
        "link": "is a link to nowhere, which is not there",
        "loop": "cannot be read: Too many levels of symbolic links",
        "missing": "is missing",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["BF16", "F8_E4M3"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__"]), inner, max_size=4),
    max_leaves=20,
)


def outcome(path: Path) -> str:
    try:
        read_header(path)
    except HeaderError as error:
        return error.message
    return "read"


@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_header_or_a_header_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    assert outcome(path)
    path.write_bytes(text(b"{" + content))
    assert outcome(path)


@given(value=st.dictionaries(st.text(max_size=5), JSON, max_size=4), size=st.integers(0, 64))
def test_any_json_gives_a_header_or_a_header_error(value: Any, size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "json.safetensors"
    path.write_bytes(header_bytes(value) + bytes(size))
    assert outcome(path)


@given(position=st.integers(0, len(RAW) - 21), value=st.integers(0, 255))
def test_what_we_let_pass_the_library_opens(position: int, value: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    library = pytest.importorskip("safetensors")
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(RAW[:position] + bytes([value]) + RAW[position + 1 :])
    if outcome(path) == "read":
        with library.safe_open(path, "np") as opened:
            assert set(opened.keys()) == set(read_header(path).tensors)
