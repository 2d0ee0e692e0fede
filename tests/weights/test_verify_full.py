"""Every byte against what it should be, and the repair of what is not: against the local Hub, by the real transfer."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import GaveUpError, OpsError
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.download import folder_to_ourselves
from qwen_fp8_ops.weights.hashing import Progress
from qwen_fp8_ops.weights.manifest import ManifestFile
from qwen_fp8_ops.weights.reference import Origin
from qwen_fp8_ops.weights.repair import mend
from qwen_fp8_ops.weights.verdict import Verdict
from qwen_fp8_ops.weights.verify import verify_fast
from qwen_fp8_ops.weights.verify_full import verify_full
from tests.hub.server import Hub, serving
from tests.waiting import wait_for
from tests.weights.shards import INDEX, entries, make_checkpoint, write_sparse_shard

ORIGIN = Origin("owner/name", "main")
SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as running:
        for name, value in running.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def model(hub: Hub, tmp_path: Path) -> Path:
    """A folder copied by hand, of which the Hub has every file and two more."""
    folder = tmp_path / "it's a model"
    make_checkpoint(folder)
    (folder / "README.md").write_text("read me")
    hub.add("owner/name", {**{path.name: path.read_bytes() for path in folder.iterdir()}, ".gitattributes": b"* lfs"})
    return folder


def flip_bit(path: Path, position: int = -100) -> None:
    """One bit of the weights, with the file's time as it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(position, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(position, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def problems(verdict: Verdict) -> dict[str, str]:
    return {bad.file: bad.problem for bad in verdict.bad}


def repaired(verdict: Verdict, **more: Any) -> tuple[Verdict, list[str], list[str]]:
    """The verdict after it, what was mended and what was not."""
    after, done = mend(verdict, ORIGIN, lambda text: None, **more)
    return after, [item.file for item in done if not item.failure], [item.file for item in done if item.failure]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != manifest.FILE}


def aside(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".download" / "aside").glob("*"))


def test_a_folder_copied_by_hand_is_compared_with_the_hub_and_gets_a_manifest(model: Path, hub: Hub) -> None:
    found = verify_full(model, ORIGIN)
    assert found.bad == ()
    assert (found.hashed, found.compared_with) == (True, "hub")
    written = manifest.read(model)
    assert written is not None
    assert (written.repo, written.revision, written.requested, written.complete) == ("owner/name", hub.repositories["owner/name"].names["main"], "main", True)
    assert {file.name for file in written.files} == set(content(model))
    assert written.exclude == (".gitattributes",)
    hub.repositories.clear()
    again = verify_full(model, ORIGIN)
    assert (again.bad, again.compared_with) == ((), "manifest")


def test_one_flipped_bit_is_found_with_and_without_a_manifest(model: Path) -> None:
    flip_bit(model / SECOND)
    assert problems(verify_full(model, ORIGIN))[SECOND].startswith("has another content than the Hub's at ")
    assert not (model / manifest.FILE).exists()
    flip_bit(model / SECOND)
    assert verify_full(model, ORIGIN).ok
    flip_bit(model / SECOND)
    assert verify_fast(model).ok  # the price of reading no weights
    assert problems(verify_full(model, ORIGIN)) == {SECOND: "has another content than its manifest says"}


def test_small_files_are_compared_by_their_git_hash(model: Path) -> None:
    flip_bit(model / "README.md", -1)
    assert list(problems(verify_full(model, ORIGIN))) == ["README.md"]


def test_without_a_hub_everything_is_read_and_recorded_as_of_unknown_origin(model: Path, hub: Hub) -> None:
    hub.fail("/api/", status=500)
    found = verify_full(model, ORIGIN)
    assert found.bad == ()
    assert found.compared_with == "nothing"
    assert found.notes[0].startswith("Not compared with the Hub: ")
    written = manifest.read(model)
    assert written is not None
    assert (written.repo, written.revision, written.requested, len(written.files)) == ("owner/name", "", "main", 10)
    flip_bit(model / SECOND)
    assert problems(verify_full(model, ORIGIN)) == {SECOND: "has another content than its manifest says"}
    flip_bit(model / SECOND)
    hub.heal()
    assert verify_full(model, ORIGIN).compared_with == "hub"
    written = manifest.read(model)
    assert written is not None
    assert written.revision


@pytest.mark.parametrize("by", ["hf download --local-dir", "the cache of huggingface_hub"])
def test_a_folder_that_knows_its_commit_is_compared_with_that_one(by: str, model: Path, hub: Hub) -> None:
    old = hub.repositories["owner/name"].names["main"]
    hub.add("owner/name", {"README.md": b"all is new"})
    assert not verify_full(model, ORIGIN).ok
    if by == "the cache of huggingface_hub":
        model = model.rename(model.parent / old)
    else:
        (model / ".cache/huggingface/download").mkdir(parents=True)
        (model / ".cache/huggingface/download/config.json.metadata").write_text(f"{old}\nan-etag\n1700000000.0\n")
    assert problems(verify_full(model, ORIGIN)) == {}
    written = manifest.read(model)
    assert written is not None
    assert (written.revision, written.requested) == (old, "main")


def test_a_copy_that_lost_its_times_is_stale_until_it_is_hashed(model: Path) -> None:
    verify_full(model, ORIGIN)
    os.utime(model / SECOND, ns=(5, 5))
    (stale,) = verify_fast(model).bad
    assert (stale.kind, stale.fix) == ("stale", "qwen-fp8 verify")
    assert verify_full(model, ORIGIN).ok
    assert verify_fast(model).ok


def test_a_read_only_folder_is_verified_and_the_manifest_only_missed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, value: manifest.Manifest) -> None:
        raise OpsError("Cannot write it")

    monkeypatch.setattr(manifest, "write", refuse)
    found = verify_full(model, ORIGIN)
    assert found.ok
    assert found.notes == ("The hashes could not be kept: Cannot write it",)


def test_progress_ends_with_everything(model: Path) -> None:
    heard: list[Progress] = []
    found = verify_full(model, ORIGIN, heard.append)
    assert heard[-1] == Progress(found.size_bytes, found.size_bytes, found.files, found.files)
    assert heard[-1].fraction == 1.0


def test_the_demo_checkpoint_is_compared_with_its_label(tmp_path: Path) -> None:
    from qwen_fp8_ops.weights.demo.recipe import Recipe, attach_label

    make_checkpoint(tmp_path)
    attach_label(tmp_path, Recipe("test", 1, lambda folder, say: None))
    found = verify_full(tmp_path, None)
    assert (found.bad, found.compared_with) == ((), "recipe")
    assert not (tmp_path / manifest.FILE).exists()
    flip_bit(tmp_path / SECOND)
    (bad,) = verify_full(tmp_path, None).bad
    assert bad.problem == "has another content than when it was made"
    assert "qwen-fp8 download --profile demo" in bad.fix


TROUBLE = {
    "a flipped bit": lambda model: flip_bit(model / SECOND),
    "a cut shard": lambda model: os.truncate(model / SECOND, 5000),
    "a missing shard": lambda model: (model / SECOND).unlink(),
    "the wrong shard": lambda model: shutil.copyfile(model / "model-00001-of-00003.safetensors", model / SECOND),
    "an LFS pointer": lambda model: (model / SECOND).write_text("version https://git-lfs.github.com/spec/v1\n"),
    "a link to nowhere": lambda model: [(model / SECOND).unlink(), (model / SECOND).symlink_to("nowhere")],
    "a folder in its place": lambda model: [(model / SECOND).unlink(), (model / SECOND).mkdir()],
    "zeros": lambda model: (model / SECOND).write_bytes(bytes((model / SECOND).stat().st_size)),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["without a manifest", "with a manifest"])
@pytest.mark.parametrize(("trouble", "fast"), [(trouble, fast) for trouble in TROUBLE for fast in (False, True) if not (fast and trouble == "a flipped bit")])
def test_only_what_is_bad_is_fetched(trouble: str, fast: bool, recorded: bool, model: Path, hub: Hub) -> None:
    before = content(model)
    if recorded:
        assert verify_full(model, ORIGIN).ok
    TROUBLE[trouble](model)
    hub.requests.clear()
    found = verify_fast(model) if fast else verify_full(model, ORIGIN)
    assert SECOND in problems(found)
    after, done, failed = repaired(found)
    assert (after.bad, done, failed) == ((), [SECOND], [])
    assert content(model) == before
    assert {request.path.rpartition("/")[2] for request in hub.asked_for("/resolve/")} == {SECOND}
    assert aside(model) == ([f"{SECOND}.1"] if trouble == "a folder in its place" else [])
    assert verify_full(model, ORIGIN).ok
    assert verify_fast(model).ok


def test_a_wrong_index_accuses_shards_that_are_fine(model: Path, hub: Hub) -> None:
    before = content(model)
    verify_full(model, ORIGIN)
    index = json.loads((model / INDEX).read_text())
    index["weight_map"]["something.else"] = SECOND
    (model / INDEX).write_text(json.dumps(index))
    assert set(problems(verify_fast(model))) == {SECOND, INDEX}
    after, done, failed = repaired(verify_fast(model))
    assert (after.bad, done, failed) == ((), [INDEX], [])
    assert content(model) == before
    assert hub.asked_for(f"/resolve/{hub.repositories['owner/name'].names['main']}/{SECOND}") == []


def test_a_shard_of_another_revision_is_put_aside_and_kept(model: Path) -> None:
    shutil.copyfile(model / SECOND, model / "model-00009-of-00009.safetensors")
    after, done, failed = repaired(verify_full(model, ORIGIN))
    assert (after.bad, done, failed) == ((), ["model-00009-of-00009.safetensors"], [])
    assert aside(model) == ["model-00009-of-00009.safetensors.1"]


def test_where_no_replacement_comes_everything_stays_as_it_was(model: Path, hub: Hub) -> None:
    verify_full(model, ORIGIN)
    flip_bit(model / SECOND)
    (model / "README.md").unlink()
    before = content(model)
    hub.fail(SECOND, status=403)
    after, done, failed = repaired(verify_full(model, ORIGIN))
    assert (done, failed) == (["README.md"], [SECOND])
    assert list(problems(after)) == [SECOND]
    assert content(model) == {**before, "README.md": b"read me"}
    assert aside(model) == []


def test_the_bad_shard_is_there_until_the_good_one_is_verified(model: Path, hub: Hub) -> None:
    """While the replacement is fetched the bad one waits aside, and Ctrl+C brings it back."""
    verify_full(model, ORIGIN)
    flip_bit(model / SECOND)
    bad = (model / SECOND).read_bytes()

    def watch(name: str) -> ManifestFile:
        assert not (model / name).exists()
        assert (model / ".download" / "aside" / f"{name}.1").read_bytes() == bad
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repaired(verify_full(model, ORIGIN), fetcher=lambda expected: watch)
    assert (model / SECOND).read_bytes() == bad


def test_what_nobody_has_cannot_be_repaired(model: Path, hub: Hub) -> None:
    hub.fail("/api/", status=500)
    os.truncate(model / SECOND, 10)
    after, done = mend(verify_full(model, ORIGIN), ORIGIN, lambda text: None)
    assert list(problems(after)) == [SECOND]
    (failure,) = [item.failure for item in done]
    assert failure is not None
    assert (failure.code, failure.fix) == ("no-source", after.notes[0])
    assert after.notes[0].startswith("Not compared with the Hub")
    assert (model / SECOND).stat().st_size == 10


def test_a_hub_that_does_not_answer_is_asked_for_one_file_only(model: Path) -> None:
    verify_full(model, ORIGIN)
    for path in model.glob("*.safetensors"):
        path.unlink()
    asked: list[str] = []

    def give_up(name: str) -> ManifestFile:
        asked.append(name)
        raise GaveUpError("The Hub does not answer", code="no-hub")

    _, done, failed = repaired(verify_fast(model), fetcher=lambda expected: give_up)
    assert (len(asked), done, len(failed)) == (1, [], 3)


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "qwen_fp8_ops", "verify", *words]


def run(hub: Hub, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words, "--set", "MODEL_ID=owner/name"), env=environment(hub, tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120)


def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "QWEN_FP8_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path), **hub.environment(tmp_path)}


def test_the_verb(model: Path, hub: Hub, tmp_path: Path) -> None:
    path = ("--path", "it's a model")
    done = run(hub, tmp_path, *path)
    assert (done.returncode, done.stdout) == (0, f"Whole: 11 files, {sum(map(len, content(model).values())) / 1e3:.1f} kB in {model}, every byte as on the Hub.\n")
    flip_bit(model / SECOND)
    assert run(hub, tmp_path, *path, "--fast").returncode == 0
    done = run(hub, tmp_path, *path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [f"BAD  {SECOND} has another content than its manifest says", """     qwen-fp8 verify --path 'it'"'"'s a model' --repair"""]
    done = run(hub, tmp_path, *path, "--json")
    assert done.returncode == 1
    value = json.loads(done.stdout)
    assert {key: value[key] for key in ("schema", "ok", "files")} == {"schema": 1, "ok": False, "files": 11}
    assert value["bytes"] == sum(map(len, content(model).values()))
    assert [set(bad) for bad in value["bad"]] == [{"file", "problem", "fix"}]
    done = run(hub, tmp_path, *path, "--repair", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["repaired"] == [SECOND]
    done = run(hub, tmp_path, "--path", "nowhere", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["bad"][0]["problem"] == "is missing"


def test_ctrl_c_ends_it_at_once(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_sparse_shard(tmp_path / "model" / "model.safetensors", entries({"x": ("U8", [1 << 40])}))  # a terabyte of zeros takes minutes
    hub.fail("/api/", status=404)
    with subprocess.Popen(command("--path", "model"), env=environment(hub, tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith("hashing")
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
        assert child.stderr.read().strip() == "Error: Interrupted."


def test_a_download_at_work_is_not_disturbed(model: Path) -> None:
    (model / SECOND).unlink()
    with folder_to_ourselves(model), pytest.raises(OpsError) as told:
        repaired(verify_fast(model))
    assert told.value.code == "download-running"


def test_a_download_takes_over_what_a_verification_recorded(model: Path, hub: Hub, tmp_path: Path) -> None:
    """Recorded with the Hub and without it: nothing is fetched that is here."""
    for reachable in (False, True):
        fault = hub.fail("/api/", status=500)
        if reachable:
            hub.heal()
        assert verify_full(model, ORIGIN).ok
        hub.heal()
        hub.requests.clear()
        words = [sys.executable, "-P", "-m", "qwen_fp8_ops", "download", "--to", str(model), "--set", "MODEL_ID=owner/name", "--set", "MODEL_REVISION=main"]
        done = subprocess.run(words, env=environment(hub, tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert fault not in hub.faults
        assert {request.path.rpartition("/")[2] for request in hub.asked_for("/resolve/")} <= {".gitattributes"}
        assert verify_fast(model).ok
        (model / manifest.FILE).unlink()


def test_a_killed_repair_goes_on(model: Path, hub: Hub, tmp_path: Path) -> None:
    before = content(model)
    verify_full(model, ORIGIN)
    flip_bit(model / SECOND)
    fault = hub.fail(SECOND, stall_after=100)
    words = ("--path", str(model), "--repair", "--set", "MODEL_ID=owner/name")
    with subprocess.Popen(command(*words), env=environment(hub, tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        wait_for(fault.stalled.is_set, "the fetch has begun")
        child.kill()
    assert list(problems(verify_fast(model))) == [SECOND]
    assert aside(model) == [f"{SECOND}.1"]
    hub.heal()
    assert run(hub, tmp_path, "--path", str(model), "--fast", "--repair").returncode == 0
    assert content(model) == before


def test_random_damage_is_always_found_and_always_repaired(model: Path) -> None:
    dice = random.Random(3)
    before = content(model)
    assert verify_full(model, ORIGIN).ok
    for _ in range(20):
        hurt = dice.sample(sorted(before), 2)
        for name in hurt:
            size = (model / name).stat().st_size
            dice.choice([lambda name: (model / name).unlink(), lambda name, size=size: flip_bit(model / name, -dice.randint(1, size)), lambda name: os.truncate(model / name, 1)])(name)
        found = verify_full(model, ORIGIN)
        assert set(hurt) <= set(problems(found)), hurt
        after, done, _ = repaired(found)
        assert after.bad == ()
        assert set(done) == set(hurt)
        assert content(model) == before


def test_the_json_keeps_its_schema(model: Path) -> None:
    assert dataclasses.replace(verify_fast(model), notes=("x",)).as_json().keys() == {"schema", "ok", "path", "files", "bytes", "hashed", "compared_with", "bad", "notes"}
