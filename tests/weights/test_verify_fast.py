"""Everything that can be wrong with a model folder and be seen without reading its weights, made for real."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.weights import card, manifest
from qwen_fp8_ops.weights.facts import CARD_235B, read_facts
from qwen_fp8_ops.weights.manifest import Manifest, ManifestFile
from qwen_fp8_ops.weights.verify import is_needed, verify_fast
from tests.weights.shards import CONFIG, INDEX, entries, make_checkpoint, promised_tensors, write_shard

SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a model"
    make_checkpoint(folder)
    return folder


def record(folder: Path, **changes: Any) -> Manifest:
    """A manifest of what is there now."""
    files = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        files.append(ManifestFile(path.name, len(content), hashlib.sha256(content).hexdigest(), path.stat().st_mtime_ns))
    found = dataclasses.replace(Manifest("owner/name", "a" * 40, "main", tuple(files), True), **changes)
    manifest.write(folder, found)
    return found


def problems(folder: Path) -> dict[str, str]:
    found = verify_fast(folder)
    assert found.ok == (not found.bad)
    assert all(bad.fix for bad in found.bad)
    return {bad.file: bad.problem for bad in found.bad}


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_whole_folder_is_fine(model: Path) -> None:
    found = verify_fast(model)
    assert found.bad == ()
    assert found.files == 10
    assert found.size_bytes == sum(path.stat().st_size for path in model.iterdir())
    assert found.as_json() == {
        "schema": 1,
        "ok": True,
        "path": str(model),
        "files": 10,
        "bytes": found.size_bytes,
        "hashed": False,
        "compared_with": None,
        "bad": [],
        "notes": [],
    }


def test_with_its_manifest_it_is_fine_too(model: Path) -> None:
    record(model)
    assert problems(model) == {}


def test_a_checkpoint_of_one_file_needs_no_index(tmp_path: Path) -> None:
    (shard,) = make_checkpoint(tmp_path, shards=1)
    shard.rename(tmp_path / "model.safetensors")
    (tmp_path / INDEX).unlink()
    assert problems(tmp_path) == {}


def test_links_into_a_cache_are_fine(model: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    for path in model.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert problems(tmp_path / "snapshot") == {}


def cut(model: Path) -> None:
    os.truncate(model / SECOND, (model / SECOND).stat().st_size - 7)


def wrong_shard(model: Path) -> None:
    shutil.copyfile(model / "model-00001-of-00003.safetensors", model / SECOND)


def shard_of_another_revision(model: Path) -> None:
    shutil.copyfile(model / SECOND, model / "model-00002-of-00004.safetensors")


def pointer(model: Path) -> None:
    (model / SECOND).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5000000000\n")


def link_to_nowhere(model: Path) -> None:
    (model / SECOND).unlink()
    (model / SECOND).symlink_to("../blobs/0123")


def folder_in_its_place(model: Path) -> None:
    (model / SECOND).unlink()
    (model / SECOND).mkdir()


def damaged_header(model: Path) -> None:
    with (model / SECOND).open("r+b") as file:
        file.seek(20)
        file.write(b"\xff")


def index_with_one_tensor_more(model: Path) -> None:
    change_json(model / INDEX, lambda index: index["weight_map"].update({"model.language_model.layers.7.norm.weight": SECOND}))


def index_with_one_tensor_less(model: Path) -> None:
    change_json(model / INDEX, lambda index: index["weight_map"].pop(next(name for name, shard in index["weight_map"].items() if shard == SECOND)))


def in_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda model: change_json(model / "config.json", change)


TROUBLE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "cut shard": (cut, SECOND, "is cut short: 7 of"),
    "missing shard": (lambda model: (model / SECOND).unlink(), SECOND, "is missing"),
    "wrong shard under the right name": (wrong_shard, SECOND, "is another shard: it holds none of"),
    "shard of another revision": (shard_of_another_revision, "model-00002-of-00004.safetensors", "is no part of this checkpoint"),
    "LFS pointer": (pointer, SECOND, "is a Git LFS pointer"),
    "LFS pointer for the tokenizer": (lambda model: (model / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n"), "tokenizer.json", "is a Git LFS pointer"),
    "link to nowhere": (link_to_nowhere, SECOND, "is a link to ../blobs/0123, which is not there"),
    "folder in a file's place": (folder_in_its_place, SECOND, "is a folder"),
    "folder in the config's place": (lambda model: [(model / "config.json").unlink(), (model / "config.json").mkdir()], "config.json", "is a folder"),
    "pipe in the index's place": (lambda model: [(model / INDEX).unlink(), os.mkfifo(model / INDEX)], INDEX, "is no regular file"),
    "damaged header": (damaged_header, SECOND, "has a header that is not JSON"),
    "index naming a missing tensor": (index_with_one_tensor_more, SECOND, "lacks the tensor model.language_model.layers.7.norm.weight that the index places in it"),
    "tensor unknown to the index": (index_with_one_tensor_less, SECOND, "that the index does not place in it: it may be of another revision"),
    "no index": (lambda model: (model / INDEX).unlink(), INDEX, "is missing"),
    "index that is a link to nowhere": (lambda model: [(model / INDEX).unlink(), (model / INDEX).symlink_to("x")], INDEX, "is a link to x, which is not there"),
    "damaged index": (lambda model: (model / INDEX).write_text("{"), INDEX, "is damaged"),
    "empty index": (lambda model: (model / INDEX).write_text("{}"), INDEX, "has no weight_map"),
    "index that leaves the folder": (lambda model: (model / INDEX).write_text('{"weight_map": {"a": "../x.safetensors"}}'), INDEX, "names '../x.safetensors', which is no file beside it"),
    "index with a NUL": (lambda model: (model / INDEX).write_text('{"weight_map": {"a": "\\u0000.safetensors"}}'), INDEX, "which is no file beside it"),
    "no config": (lambda model: (model / "config.json").unlink(), "config.json", "is missing"),
    "damaged config": (lambda model: (model / "config.json").write_text("{"), "config.json", "is no JSON"),
    "empty config": (lambda model: (model / "config.json").write_text(""), "config.json", "is empty"),
    "config that is a list": (lambda model: (model / "config.json").write_text("[]"), "config.json", "is no JSON object"),
    "config of another model": (in_config(lambda config: config["text_config"].update(num_hidden_layers=48)), "config.json", "the weights have 2 layers: it is of another model"),
    "config of another width": (in_config(lambda config: config["text_config"].update(hidden_size=512)), "config.json", "it is of another model"),
    "config without quantisation": (in_config(lambda config: config.pop("quantization_config")), "config.json", "has no quantization_config, but"),
    "config with a bad block": (in_config(lambda config: config["quantization_config"].update(weight_block_size=[128])), "config.json", "has weight_block_size=[128]"),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "tokenizer.json", "is missing"),
    "no tokenizer config": (lambda model: (model / "tokenizer_config.json").unlink(), "tokenizer_config.json", "is missing"),
    "no image processor": (lambda model: (model / "preprocessor_config.json").unlink(), "preprocessor_config.json", "is missing"),
    "no video processor": (lambda model: (model / "video_preprocessor_config.json").unlink(), "video_preprocessor_config.json", "is missing"),
    "large tokenizer cut short": (lambda model: (model / "tokenizer.json").write_text("{" + " " * 5_000_000), "tokenizer.json", "is no JSON, or cut short"),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["without a manifest", "with a manifest"])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_is_told(trouble: str, recorded: bool, model: Path) -> None:
    make, file, said = TROUBLE[trouble]
    if recorded:
        record(model)
    make(model)
    found = problems(model)
    assert said in found[file], found
    if trouble != "tensor unknown to the index":  # it may be another's scale
        assert set(found) - {file} <= ({INDEX} if recorded else set()), found


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "is missing"),
        (lambda folder: folder.write_text("x"), "is a file, not a folder"),
        (lambda folder: folder.symlink_to("nowhere"), "is a link to nowhere, which is not there"),
    ],
    ids=["missing", "file", "link"],
)
def test_a_folder_that_is_none_is_told(make: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    make(tmp_path / "model")
    assert problems(tmp_path / "model") == {".": said}


def test_an_empty_folder_lacks_everything(tmp_path: Path) -> None:
    assert problems(tmp_path) == dict.fromkeys(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"], "is missing")


WEIGHT = "model.language_model.layers.0.mlp.experts.1.up_proj.weight"


def with_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The checkpoint anew, in two shards: scales are not where their weights are."""
    make_checkpoint(folder, 1)
    (folder / "model-00001-of-00001.safetensors").unlink()
    tensors = promised_tensors(CONFIG)
    change(tensors)
    shards = {"weights.safetensors": {}, "scales.safetensors": {}}  # type: dict[str, dict[str, Any]]
    for name, form in tensors.items():
        shards["scales.safetensors" if "_scale" in name else "weights.safetensors"][name] = form
    for file, mine in shards.items():
        write_shard(folder / file, entries(mine))
    (folder / INDEX).write_text(json.dumps({"weight_map": {name: file for file, mine in shards.items() for name in mine}}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: None, {}),
        (lambda tensors: tensors.pop(f"{WEIGHT}_scale_inv"), {"weights.safetensors": f"holds FP8 weights without their scales: the tensor {WEIGHT}"}),
        (lambda tensors: tensors.update({f"{WEIGHT}_scale_inv": ("BF16", [1, 1])}), {"weights.safetensors": f"holds FP8 weights whose scales have another shape: the tensor {WEIGHT}"}),
        (lambda tensors: tensors.update({WEIGHT: ("BF16", [64, 256])}), {"weights.safetensors": f"holds weights that are not FP8, though config.json says so: the tensor {WEIGHT}"}),
        (lambda tensors: tensors.update({"lm_head.weight": ("F8_E4M3", [32, 256])}), {}),
    ],
    ids=["whole", "no scale", "a scale of another shape", "a weight that is not FP8", "an ignored one"],
)
def test_scales(change: Callable[[dict[str, Any]], Any], said: dict[str, str], tmp_path: Path) -> None:
    with_tensors(tmp_path, change)
    assert problems(tmp_path) == said


def test_where_the_scales_are_lost_with_their_shard_only_the_shard_is_told(tmp_path: Path) -> None:
    with_tensors(tmp_path, lambda tensors: None)
    (tmp_path / "scales.safetensors").unlink()
    assert problems(tmp_path) == {"scales.safetensors": "is missing"}


def test_the_manifest_knows_size_time_and_every_file(model: Path) -> None:
    (model / "README.md").write_text("read me")
    record(model)
    with (model / SECOND).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    os.utime(model / SECOND, ns=(1, 1))
    (model / "README.md").unlink()
    (model / "generation_config.json").write_text('{"longer": "than before"}')
    assert problems(model) == {
        SECOND: "was changed after it was verified, or copied without its time",
        "README.md": "is missing",
        "generation_config.json": "has 25 bytes, and should have 2",
    }
    assert [is_needed(name) for name in (SECOND, "README.md", "generation_config.json", INDEX, ".")] == [True, False, True, True, True]


def test_an_unfinished_download_is_told(model: Path) -> None:
    record(model, complete=False)
    (bad,) = verify_fast(model).bad
    assert (bad.file, bad.problem, bad.fix) == (manifest.FILE, "says that the download has not ended", "./download_model.sh")


def test_a_damaged_manifest_is_told(model: Path) -> None:
    (model / manifest.FILE).write_text("{")
    (bad,) = verify_fast(model).bad
    assert bad.file == manifest.FILE
    assert bad.problem.startswith("is damaged")
    assert "mv" in bad.fix


def test_the_demos_label_is_a_list_of_its_files(model: Path) -> None:
    files = {path.name: path.stat().st_size for path in model.iterdir()}
    (model / "demo.json").write_text(json.dumps({"recipe": "x", "version": 1, "files": files}))
    assert problems(model) == {}
    (model / "merges.txt").write_text("x")
    (model / "generation_config.json").write_text("{    }")
    (bad,) = verify_fast(model).bad
    assert (bad.file, bad.problem) == ("generation_config.json", "has 6 bytes, and should have 2")
    assert "qwen-fp8 download --profile demo" in bad.fix


AS_NOBODY = """
import json, os, sys
from pathlib import Path
from qwen_fp8_ops.weights.verify import verify_fast
os.setgroups([]), os.setgid(65534), os.setuid(65534)  # after the imports: the interpreter may be closed to others
print(json.dumps([[bad.file, bad.problem, bad.fix, bad.kind] for bad in verify_fast(Path(sys.argv[1])).bad]))
"""


def bad_for_nobody(folder: Path) -> Any:
    """What another user is told of the folder: root may read anything."""
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, str(folder)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_files_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as place:  # not below pytest's own folder, which is closed to others
        os.chmod(place, 0o755)
        folder = Path(place) / "model"
        make_checkpoint(folder)
        for name in (SECOND, "tokenizer_config.json"):
            (folder / name).chmod(0)
        assert bad_for_nobody(folder) == [
            [name, "cannot be read: Permission denied", f"chmod a+r {folder / name}", "unreadable"] for name in (SECOND, "tokenizer_config.json")
        ]
        folder.chmod(0)
        assert bad_for_nobody(folder)[0][:2] == [".", "cannot be read: Permission denied"]


def test_the_large_model_is_240_gb_of_sparse_files(tmp_path: Path) -> None:
    """50 shards and 73,000 tensors, as the published checkpoint has them, on no disk at all."""
    paths = make_checkpoint(tmp_path, 50, config=card.CONFIG_235B, sparse=True)
    found = verify_fast(tmp_path)
    assert found.bad == ()
    assert found.size_bytes > 237_569_692_128
    assert sum(path.stat().st_blocks for path in paths) * 512 < 200e6
    assert dataclasses.replace(read_facts(tmp_path), source="card") == CARD_235B
    os.truncate(paths[31], paths[31].stat().st_size - 1)
    assert [bad.file for bad in verify_fast(tmp_path).bad] == [paths[31].name]
