"""What a download leaves in a folder, whatever was there before. The real huggingface_hub speaks to a Hub on this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import ExitCode, OpsError, PreflightError
from qwen_fp8_ops.weights import manifest, room
from qwen_fp8_ops.weights.download import Result, download
from qwen_fp8_ops.weights.download_plan import Presence, Request, make_download_plan
from qwen_fp8_ops.weights.fetch import fetch_file, part_path
from qwen_fp8_ops.weights.hub import Hub, HubFile, hub_files
from tests.hub.server import TOKEN
from tests.hub.server import Hub as LocalHub

REPO = "owner/name"
SHARD = "model-00001-of-00002.safetensors"
FILES: dict[str, bytes | Path] = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "folder/with space+plus.txt": b"deep",
    SHARD: os.urandom(300_000),
    "model-00002-of-00002.safetensors": os.urandom(200_000),
}


class Notes:
    """Who follows a download, for tests."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.bytes: dict[str, int] = {}
        self.fetched = 0
        self.done: list[str] = []

    def begin(self, plan: Any) -> None:
        self.plan = plan

    def moved(self, name: str, count: int, *, fetched: bool) -> None:
        self.bytes[name] = self.bytes.get(name, 0) + count
        self.fetched += count if fetched else 0

    def finished(self, file: manifest.ManifestFile) -> None:
        self.done.append(file.name)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request(REPO, "main", tmp_path / "it's a folder")


def run(request: Request, hub: LocalHub, notes: Notes | None = None) -> Result:
    return download(request, Hub(hub.url, 5.0, (0.01, 0.01, 0.01)), notes or Notes())


def content(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".download" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != manifest.FILE}


def break_off(hub: LocalHub) -> None:
    """The storage drops two connections after a while, and does not come back."""
    hub.fail(f"/storage/{REPO}", drop_after=100_000, times=2)
    hub.fail(f"/storage/{REPO}", status=500)


def flip_a_bit(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(bytes([body[0] ^ 1]) + body[1:])


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_every_file_is_there_and_in_the_manifest(local_hub: LocalHub, request_: Request) -> None:
    commit = local_hub.add(REPO, FILES)
    notes = Notes()
    result = run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    assert (result.fetched_files, result.fetched_bytes) == (5, sum(map(len, FILES.values())))  # type: ignore[arg-type]
    written = manifest.read(request_.folder)
    assert written
    assert (written.repo, written.revision, written.requested, written.complete, written.partial) == (REPO, commit, "main", True, False)
    for name, body in FILES.items():
        known = written.file(name)
        assert known
        assert known.unchanged(request_.folder)
        assert known.sha256 == hashlib.sha256(body).hexdigest()  # type: ignore[arg-type]
        assert (known.git_blob is None) == name.endswith(".safetensors")
    assert parts(request_.folder) == []
    assert notes.bytes == {name: len(body) for name, body in FILES.items() if body}  # type: ignore[arg-type]
    assert sorted(notes.done) == sorted(FILES)


def test_a_complete_folder_costs_one_request(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    before = {path: path.stat().st_mtime_ns for path in request_.folder.rglob("*") if path.is_file()}
    local_hub.requests.clear()
    assert run(request_, local_hub).nothing_to_do
    assert len(local_hub.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in request_.folder.rglob("*") if path.is_file()} == before


def test_a_complete_folder_of_a_named_commit_asks_nobody(local_hub: LocalHub, request_: Request) -> None:
    request = replace(request_, revision=local_hub.add(REPO, FILES))
    run(request, local_hub)
    local_hub.requests.clear()
    assert run(request, local_hub).nothing_to_do
    assert local_hub.requests == []


def test_a_complete_folder_of_another_user_is_fine(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    (request_.folder / ".download").rename(request_.folder / "away")
    assert run(request_, local_hub).nothing_to_do
    assert not (request_.folder / ".download").exists()


def test_what_is_refused_makes_nothing(local_hub: LocalHub, request_: Request) -> None:
    with pytest.raises(OpsError):
        run(request_, local_hub)
    with pytest.raises(OpsError):
        run(replace(request_, offline=True), local_hub)
    assert not request_.folder.exists()


def test_what_is_missing_or_changed_is_fetched_and_nothing_else(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    (request_.folder / "config.json").unlink()
    shard = request_.folder / SHARD
    flip_a_bit(shard)
    local_hub.requests.clear()
    result = run(request_, local_hub)
    assert content(request_.folder) == FILES
    assert result.fetched_files == 2
    assert {request.path.rpartition("/")[2].partition("?")[0] for request in local_hub.requests if "resolve" in request.path} == {"config.json", SHARD}


def test_files_that_came_by_other_means_are_checked_and_not_fetched(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    (request_.folder / manifest.FILE).unlink()
    local_hub.requests.clear()
    result = run(request_, local_hub)
    assert (result.fetched_files, result.checked_files) == (0, 5)
    assert local_hub.asked_for("resolve") == []
    written = manifest.read(request_.folder)
    assert written and written.complete and len(written.files) == 5


def test_a_small_file_that_somebody_wrote_is_put_aside_and_not_lost(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    request_.folder.mkdir()
    (request_.folder / "config.json").write_text("my own, of another length")
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    (kept,) = (request_.folder / ".download/aside").iterdir()
    assert kept.read_text() == "my own, of another length"
    assert any(str(kept) in text for text in notes.said)


def test_the_weights_of_another_model_are_not_touched(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.add("owner/other", {"config.json": b"other"})
    run(request_, local_hub)
    with pytest.raises(OpsError, match="holds owner/name, not owner/other"):
        run(replace(request_, repo="owner/other"), local_hub)
    assert content(request_.folder) == FILES


def test_only_what_was_chosen(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    request = replace(request_, include=("*.json", "*.safetensors"), exclude=("*-00002-*",))
    run(request, local_hub)
    assert set(content(request_.folder)) == {"config.json", SHARD}
    written = manifest.read(request_.folder)
    assert written and written.complete and (written.include, written.exclude) == (request.include, request.exclude)
    local_hub.requests.clear()
    assert run(request, local_hub).nothing_to_do
    assert run(request_, local_hub).fetched_files == 3
    written = manifest.read(request_.folder)
    assert written and written.complete and not written.partial


def test_a_choice_within_a_whole_folder_is_done_already(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    assert run(replace(request_, include=("*.json",)), local_hub).nothing_to_do
    written = manifest.read(request_.folder)
    assert written and not written.partial


def test_a_choice_of_nothing_is_told(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    with pytest.raises(OpsError, match="No file of owner/name matches"):
        run(replace(request_, include=("*.gguf",)), local_hub)


def test_a_small_choice_keeps_the_parts_of_an_interrupted_whole(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    break_off(local_hub)
    with pytest.raises(OpsError):
        run(request_, local_hub)
    local_hub.heal()
    run(replace(request_, include=("*.json",)), local_hub)
    assert len(parts(request_.folder)) == 2


def test_names_beyond_one_page_are_listed(local_hub: LocalHub, request_: Request) -> None:
    names = {f"folder{number % 7}/file{number}.txt": b"x%d" % number for number in range(60)}
    local_hub.add(REPO, names)
    local_hub.page_entries = 25
    try:
        run(request_, local_hub)
    finally:
        local_hub.page_entries = 1000
    assert content(request_.folder) == names
    assert len(local_hub.asked_for("/tree/")) == 3


def test_a_name_that_leaves_the_folder_is_refused(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, {"../outside": b"x"})
    with pytest.raises(OpsError, match="leaves the folder"):
        run(request_, local_hub)
    assert not (request_.folder.parent / "outside").exists()


def test_names_of_our_own_files_are_left_out(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, {"config.json": b"1", "manifest.json": b"theirs", ".download/lock": b"theirs"})
    run(request_, local_hub)
    written = manifest.read(request_.folder)
    assert written and [file.name for file in written.files] == ["config.json"]


def test_a_branch_that_moves_during_the_download_changes_nothing(local_hub: LocalHub, request_: Request) -> None:
    old = local_hub.add(REPO, FILES)
    new = local_hub.add(REPO, {**FILES, "config.json": b"new"})
    local_hub.repositories[REPO].names["main"] = old
    local_hub.move_after[REPO] = ("/revision/main", new)
    result = run(request_, local_hub)
    assert result.plan.commit == old
    assert content(request_.folder) == FILES
    assert local_hub.repositories[REPO].names["main"] == new


def test_a_folder_stays_at_its_commit_until_it_is_asked_to_move(local_hub: LocalHub, request_: Request) -> None:
    old = local_hub.add(REPO, FILES)
    run(request_, local_hub)
    replaced = {name: body for name, body in FILES.items() if name != SHARD} | {"config.json": b"new one", "other.safetensors": b"w" * 1000}
    new = local_hub.add(REPO, replaced)
    notes = Notes()
    stayed = run(request_, local_hub, notes)
    assert (stayed.plan.commit, stayed.plan.moved_to, stayed.nothing_to_do) == (old, new, True)
    assert any("--update" in text for text in notes.said)
    moved = run(replace(request_, update=True), local_hub)
    assert (moved.plan.commit, moved.fetched_files) == (new, 2)
    assert content(request_.folder) == replaced
    aside = [path.name for path in (request_.folder / ".download/aside").iterdir()]
    assert aside == [f"{SHARD}.1", "config.json.1"] or sorted(aside) == sorted([f"{SHARD}.1", "config.json.1"])
    written = manifest.read(request_.folder)
    assert written and written.revision == new and written.complete


def test_an_interrupted_one_goes_on_at_its_own_commit(local_hub: LocalHub, request_: Request) -> None:
    old = local_hub.add(REPO, FILES)
    break_off(local_hub)
    with pytest.raises(OpsError):
        run(request_, local_hub)
    written = manifest.read(request_.folder)
    assert written and (written.revision, written.complete) == (old, False)
    local_hub.heal()
    local_hub.add(REPO, {"config.json": b"quite another"})
    assert run(request_, local_hub).plan.commit == old
    assert content(request_.folder) == FILES


def test_another_revision_by_name_is_a_wish_to_move(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    tag = local_hub.add(REPO, {**FILES, "config.json": b"tagged!!"}, "v2")
    assert run(replace(request_, revision="v2"), local_hub).plan.commit == tag
    assert content(request_.folder)["config.json"] == b"tagged!!"


def test_a_disk_that_is_too_small_refuses_with_both_numbers(local_hub: LocalHub, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add(REPO, FILES)
    monkeypatch.setattr(room, "room", lambda folder: room.Room(200_000, 100))
    with pytest.raises(PreflightError, match=r"500\.0 kB are needed, 200\.0 kB are free") as told:
        run(request_, local_hub)
    assert (told.value.code, told.value.exit_code) == ("disk-too-small", ExitCode.PREFLIGHT)
    assert local_hub.asked_for("resolve") == []
    monkeypatch.undo()


def test_what_is_there_already_counts(local_hub: LocalHub, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add(REPO, FILES)
    run(replace(request_, exclude=("*-00002-*",)), local_hub)
    monkeypatch.setattr(room, "room", lambda folder: room.Room(150_000, None))
    with pytest.raises(PreflightError, match=r"200\.0 kB are needed \(300\.0 kB of 500\.0 kB are there already\)"):
        run(request_, local_hub)
    monkeypatch.setattr(room, "room", lambda folder: room.Room(200_000, None))
    assert run(request_, local_hub).fetched_files == 1


def test_a_disk_without_inodes_refuses(local_hub: LocalHub, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add(REPO, FILES)
    monkeypatch.setattr(room, "room", lambda folder: room.Room(10**12, 3))
    with pytest.raises(PreflightError, match="no inodes left: 5 files are needed, 3 can be made"):
        run(request_, local_hub)


def test_offline_names_what_is_missing(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    local_hub.requests.clear()
    offline = replace(request_, offline=True)
    assert run(offline, local_hub).nothing_to_do
    (request_.folder / SHARD).unlink()
    with pytest.raises(OpsError, match=r"1 of 5 files \(300\.0 kB\) are missing: model-00001-of-00002") as told:
        run(offline, local_hub)
    assert told.value.code == "offline-missing"
    assert local_hub.requests == []


def test_offline_into_an_empty_folder(local_hub: LocalHub, request_: Request) -> None:
    with pytest.raises(OpsError, match="Offline, and nothing here tells which files"):
        run(replace(request_, offline=True), local_hub)
    assert local_hub.requests == []


def test_offline_checks_what_changed(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    shard = request_.folder / SHARD
    os.utime(shard)
    assert run(replace(request_, offline=True), local_hub).checked_files == 1
    flip_a_bit(shard)
    with pytest.raises(OpsError, match=f"Offline, and {SHARD} is not what the Hub has"):
        run(replace(request_, offline=True), local_hub)


def test_a_hub_that_is_gone_does_not_spoil_a_complete_folder(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    local_hub.fail("/api/", status=503)
    notes = Notes()
    assert run(request_, local_hub, notes).nothing_to_do
    assert any("cannot be told" in text for text in notes.said)


def test_a_plan_writes_nothing(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    plan = make_download_plan(request_, Hub(local_hub.url), print)
    assert not request_.folder.exists()
    assert {item.presence for item in plan.items} == {Presence.ABSENT}
    assert plan.missing_bytes == plan.bytes


def test_a_plan_tells_what_is_there(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(replace(request_, include=("config.json",)), local_hub)
    (request_.folder / "empty.txt").touch()
    shard = next(file for file in hub_files(REPO, "main") if file.name == SHARD)
    part_path(request_.folder, shard).write_bytes(b"x" * 1000)
    states = {item.file.name: (item.presence, item.present_bytes) for item in make_download_plan(request_, Hub(local_hub.url), print).items}
    assert states["config.json"] == (Presence.VERIFIED, 8)
    assert states["empty.txt"] == (Presence.FOUND, 0)
    assert states[SHARD] == (Presence.PART, 1000)
    assert states["folder/with space+plus.txt"] == (Presence.ABSENT, 0)


def test_the_token_goes_to_the_hub_and_nowhere_else(local_hub: LocalHub, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add(REPO, FILES)
    local_hub.private.add(REPO)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run(request_, local_hub)
    assert content(request_.folder) == FILES
    storage = local_hub.asked_for("/storage/")
    assert len(storage) == 2
    assert not any("authorization" in request.headers for request in storage)


def test_hub_files_names_size_and_hash(local_hub: LocalHub) -> None:
    local_hub.add(REPO, FILES)
    found = {file.name: file for file in hub_files(REPO, "main")}
    assert found["config.json"] == HubFile("config.json", 8, None, hashlib.sha1(b'blob 8\0{"a": 1}').hexdigest())
    assert found[SHARD] == HubFile(SHARD, 300_000, hashlib.sha256(FILES[SHARD]).hexdigest(), None)  # type: ignore[arg-type]


def test_one_file_alone_takes_the_place_of_a_bad_one(local_hub: LocalHub, tmp_path: Path) -> None:
    commit = local_hub.add(REPO, FILES)
    (tmp_path / SHARD).write_bytes(b"bad")
    for revision in ("main", commit):
        file = fetch_file(REPO, revision, SHARD, tmp_path)
        assert (tmp_path / SHARD).read_bytes() == FILES[SHARD]
        assert file.unchanged(tmp_path)
    with pytest.raises(OpsError, match="has no file nothing"):
        fetch_file(REPO, "main", "nothing", tmp_path)
