"""Downloads as processes: killed, interrupted, two at once, on a full disk, on a terminal and in a log file."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.outside.process import identify
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.room import room
from tests.hub.server import TOKEN
from tests.hub.server import Hub as LocalHub
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
REPO = "owner/name"
SHARD = "model.safetensors"
STORED = f"{SHARD}?"
BODY = os.urandom(3_000_000)
FILES: dict[str, bytes | Path] = {"config.json": b"{}", SHARD: BODY, "z.safetensors": os.urandom(1000)}
TOLD_BYTES = 1_000_000


class Downloads:
    """Starts `qwen-fp8 download` into a folder, and ends what a test leaves."""

    def __init__(self, hub: LocalHub, tmp_path: Path) -> None:
        self.hub, self.home, self.folder = hub, tmp_path, tmp_path / 'models "here"'
        self.children: list[subprocess.Popen[str]] = []
        self.before: list[str] = []

    def environment(self, token: str = "", **more: str) -> dict[str, str]:
        ours = {"PYTHONPATH": str(ROOT), "QWEN_FP8_HOME": str(self.home), "PATH": os.environ["PATH"], "HOME": str(self.home)}
        return {**ours, **self.hub.environment(self.home, token), **more}

    def argv(self, *words: str) -> list[str]:
        return [*self.before, sys.executable, "-P", "-m", "qwen_fp8_ops", "download", "--set", f"MODEL_ID={REPO}", "--to", str(self.folder), *words]

    def start(self, *words: str, token: str = "", **environment: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(self.argv(*words), env=self.environment(token, **environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.children.append(child)
        return child

    def run(self, *words: str, token: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*words), env=self.environment(token, **environment), capture_output=True, text=True, timeout=120)

    def start_and_stall(self) -> tuple[subprocess.Popen[str], Path]:
        """A download that has brought a third of its shard and waits for the rest; and that third."""
        self.hub.fail(STORED, stall_after=TOLD_BYTES)
        child = self.start()
        return child, wait_for(lambda: next((part for part in self.parts() if part.stat().st_size == TOLD_BYTES), None), "a part has what was sent")

    def parts(self) -> list[Path]:
        return list(self.folder.rglob("*.part"))

    def is_right(self) -> bool:
        known = manifest.read(self.folder)
        return bool(known and known.complete) and all((self.folder / name).read_bytes() == body for name, body in FILES.items())

    def begins(self) -> list[int]:
        return [request.range_begin or 0 for request in self.hub.asked_for(STORED)]


@pytest.fixture
def downloads(local_hub: LocalHub, tmp_path: Path) -> Iterator[Downloads]:
    local_hub.add(REPO, FILES)
    starter = Downloads(local_hub, tmp_path)
    yield starter
    local_hub.heal()
    for child in starter.children:
        child.kill()
        child.communicate()


def test_killed_it_goes_on_at_the_byte_where_it_was(downloads: Downloads) -> None:
    child, _ = downloads.start_and_stall()
    child.kill()
    child.wait()
    assert (downloads.folder / ".download/lock").exists()
    downloads.hub.heal()
    done = downloads.run()
    assert done.returncode == ExitCode.DONE, done.stderr
    assert downloads.is_right()
    assert downloads.begins() == [0, TOLD_BYTES]
    assert downloads.parts() == []


def test_killed_again_and_again_it_ends(downloads: Downloads) -> None:
    for limit in range(1, 4):
        fault = downloads.hub.fail(STORED, stall_after=500_000)
        child = downloads.start()
        assert fault.stalled.wait(60)
        wait_for(lambda sent=limit * 500_000: any(part.stat().st_size == sent for part in downloads.parts()), "the bytes are in the part")
        child.kill()
        child.wait()
        downloads.hub.heal()
    assert downloads.run().returncode == ExitCode.DONE
    assert downloads.is_right()
    assert downloads.begins() == [0, 500_000, 1_000_000, 1_500_000]


def test_interrupted_it_ends_at_once_and_goes_on(downloads: Downloads) -> None:
    child, _ = downloads.start_and_stall()
    child.send_signal(signal.SIGINT)
    _, talk = child.communicate(timeout=60)
    assert child.returncode == ExitCode.INTERRUPTED
    assert "What was fetched is kept" in talk
    assert "Traceback" not in talk
    assert not (downloads.folder / ".download/lock").exists()
    downloads.hub.heal()
    assert downloads.run().returncode == ExitCode.DONE
    assert downloads.is_right()
    assert downloads.begins() == [0, TOLD_BYTES]


def test_interrupted_while_xet_storage_is_silent(downloads: Downloads) -> None:
    pytest.importorskip("hf_xet")
    downloads.hub.xet.add(REPO)
    fault = downloads.hub.fail("/xet/chunks/", stall_after=TOLD_BYTES)
    child = downloads.start("--workers", "1", "--include", SHARD)
    assert fault.stalled.wait(60)
    child.send_signal(signal.SIGINT)
    _, talk = child.communicate(timeout=60)
    assert child.returncode == ExitCode.INTERRUPTED, talk
    downloads.hub.heal()
    assert downloads.run().returncode == ExitCode.DONE
    assert downloads.is_right()


def test_the_second_of_two_is_refused_and_the_first_goes_on(downloads: Downloads) -> None:
    child, _ = downloads.start_and_stall()
    second = downloads.run("--json")
    error = json.loads(second.stdout)["error"]
    assert (second.returncode, error["code"]) == (ExitCode.FAILED, "download-running")
    assert f"(pid {child.pid} on " in error["message"]
    assert f"kill {child.pid}" in error["fix"]
    downloads.hub.heal()
    assert child.wait(60) == ExitCode.DONE
    assert downloads.is_right()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "an earlier one"}])
def test_a_stale_lock_is_cleared(downloads: Downloads, change: dict[str, Any]) -> None:
    write_lock(downloads, change)
    assert downloads.run().returncode == ExitCode.DONE
    assert downloads.is_right()


def test_a_lock_of_another_host_is_named_and_left(downloads: Downloads) -> None:
    lock = write_lock(downloads, {"host": "node7", "job_id": "42"})
    done = downloads.run()
    assert done.returncode == ExitCode.FAILED
    assert f"pid {os.getpid()} on node7, job 42" in done.stderr
    assert f"rm '{lock}'" in done.stderr
    assert lock.exists()


def write_lock(downloads: Downloads, change: dict[str, Any]) -> Path:
    me = identify(os.getpid())
    assert me
    path = downloads.folder / ".download/lock"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(replace(me, **change).as_json()))
    return path


def test_lock_files_of_other_tools_do_not_stand_in_the_way(downloads: Downloads) -> None:
    """huggingface_hub leaves such files where it was killed, and waits for them forever where flock lies."""
    theirs = downloads.folder / ".cache/huggingface/download"
    theirs.mkdir(parents=True)
    held = []
    for name in (*FILES, "model.safetensors.metadata"):
        file = (theirs / f"{name}.lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        held.append(file)
    try:
        assert downloads.run().returncode == ExitCode.DONE
    finally:
        for file in held:
            file.close()
    assert downloads.is_right()


def test_the_second_run_says_that_nothing_is_to_be_done(downloads: Downloads) -> None:
    first, second = downloads.run(), downloads.run()
    assert first.stdout.startswith(f"Complete and verified: {downloads.folder} (3 files, 3.0 MB, commit ")
    assert second.stdout.startswith(f"Complete already: {downloads.folder} (3 files, 3.0 MB, commit ")


def test_json_tells_what_was_done(downloads: Downloads) -> None:
    value = json.loads(downloads.run("--json").stdout)
    assert value["ok"] is True
    assert (value["model_id"], value["model_path"], value["files"], value["bytes"]) == (REPO, str(downloads.folder), 3, 3_001_002)
    assert (value["fetched_files"], value["fetched_bytes"], value["requested"]) == (3, 3_001_002, "main")
    assert len(value["revision"]) == 40


def test_a_dry_run_shows_and_changes_nothing(downloads: Downloads) -> None:
    text = downloads.run("--dry-run").stdout
    assert f"  {SHARD}       3.0 MB  to fetch" in text
    assert "3 files, 3.0 MB: 3.0 MB to fetch" in text
    assert not downloads.folder.exists()
    value = json.loads(downloads.run("--dry-run", "--json", "--include", "*.json").stdout)
    assert value["files"] == [{"name": "config.json", "bytes": 2, "state": "absent", "present_bytes": 0}]
    assert value["missing_bytes"] == 2
    assert not downloads.folder.exists()


@pytest.mark.parametrize("how", ["flag", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_nobody(downloads: Downloads, how: str) -> None:
    words, environment = (["--offline"], {}) if how == "flag" else ([], {how: "1"})
    done = downloads.run(*words, **environment)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.startswith("Error: Offline, and nothing here tells which files owner/name has at main")
    assert downloads.run().returncode == ExitCode.DONE
    asked = len(downloads.hub.requests)
    assert downloads.run(*words, **environment).stdout.startswith("Complete already")
    (downloads.folder / "config.json").unlink()
    missing = downloads.run(*words, **environment)
    assert "Offline, and 1 of 3 files (2 bytes) are missing: config.json" in missing.stderr
    assert len(downloads.hub.requests) == asked


def test_offline_and_update_contradict_each_other(downloads: Downloads) -> None:
    assert downloads.run("--offline", "--update").returncode == ExitCode.USAGE


@pytest.mark.parametrize("token", [TOKEN, "hf_ofNobodyAtAll"])
def test_the_token_is_never_printed(downloads: Downloads, token: str) -> None:
    downloads.hub.private.add(REPO)
    done = downloads.run("--verbose", token=token)
    assert done.returncode == (ExitCode.DONE if token == TOKEN else ExitCode.FAILED)
    files = "".join(path.read_text() for path in (downloads.folder / "manifest.json", downloads.folder / ".download/listing.json") if path.exists())
    assert token not in done.stdout + done.stderr + files


def test_on_a_terminal_there_are_bars(downloads: Downloads) -> None:
    downloads.hub.fail(STORED, stall_after=TOLD_BYTES)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(downloads.argv(), env=downloads.environment(TERM="xterm", COLUMNS="120"), stdout=subprocess.PIPE, stderr=theirs, text=True)
    downloads.children.append(child)
    os.close(theirs)
    seen = b""
    while b"2 of 3 files" not in seen or b"1.0/3.0 MB" not in seen:
        seen += os.read(ours, 4096)
    downloads.hub.heal()
    assert child.wait(60) == ExitCode.DONE
    os.close(ours)
    assert SHARD.encode() in seen


class SmallDisk:
    """A file system of its own in memory, seen by children that enter its namespace."""

    def __init__(self, folder: Path, options: str) -> None:
        folder.mkdir()
        script = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo ready && exec sleep 600'
        self.holder = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script, "sh", options, str(folder)], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout
        if self.holder.stdout.readline() != "ready\n":
            self.close()
            pytest.skip("this machine gives no namespace to mount a small disk in")
        self.inside = Path(f"/proc/{self.holder.pid}/root{folder}")
        self.enter = ["nsenter", "-t", str(self.holder.pid), "-U", "-m", "--preserve-credentials"]

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


def on_small_disk(downloads: Downloads, options: str) -> SmallDisk:
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("no unshare")
    disk = SmallDisk(downloads.home / "disk", options)
    downloads.before, downloads.folder = disk.enter, downloads.home / "disk/models"
    return disk


def test_a_disk_that_fills_up_is_told_and_gone_on_with(downloads: Downloads) -> None:
    disk = on_small_disk(downloads, "size=4m")
    try:
        fault = downloads.hub.fail(STORED, stall_after=TOLD_BYTES)
        child = downloads.start()
        assert fault.stalled.wait(60)
        filler = disk.inside / "filler"
        with filler.open("wb", buffering=0) as file:
            while room(filler.parent).free_bytes:
                file.write(b"x" * 4096)
        downloads.hub.heal()
        _, talk = child.communicate(timeout=60)
        assert child.returncode == ExitCode.FAILED
        assert talk.startswith("Error: The disk is full: "), talk
        assert "df -h" in talk
        refused = downloads.run()
        assert refused.returncode == ExitCode.PREFLIGHT, refused.stderr
        assert "is too small" in refused.stderr and "are there already" in refused.stderr
        filler.unlink()
        done = downloads.run()
        assert done.returncode == ExitCode.DONE, done.stderr
        assert (disk.inside / "models" / SHARD).read_bytes() == BODY
        assert downloads.begins()[0] == 0 and downloads.begins()[-1] >= TOLD_BYTES
    finally:
        disk.close()


def test_a_disk_without_inodes_says_so(downloads: Downloads) -> None:
    disk = on_small_disk(downloads, "size=8m,nr_inodes=7")
    try:
        done = downloads.run("--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (ExitCode.PREFLIGHT, "no-inodes")
        shutil.rmtree(disk.inside / "models")
        for number in range(6):
            (disk.inside / f"file{number}").touch()
        done = downloads.run("--json")
        assert json.loads(done.stdout)["error"]["code"] == "no-inodes", done.stdout
    finally:
        disk.close()


def test_the_real_client_agrees_with_our_hub(downloads: Downloads, local_hub: LocalHub, tmp_path: Path) -> None:
    """huggingface_hub's own download is the measure of how like the real one our Hub behaves."""
    local_hub.gated.add("owner/gated")
    local_hub.add("owner/gated", FILES)

    def hf(repo: str, target: Path = tmp_path / "theirs") -> subprocess.CompletedProcess[str]:
        program = "import sys; from huggingface_hub import snapshot_download; snapshot_download(sys.argv[1], local_dir=sys.argv[2])"
        argv: Sequence[str] = [sys.executable, "-c", program, repo, str(target)]
        return subprocess.run(argv, env=downloads.environment(), capture_output=True, text=True, timeout=120)

    assert hf(REPO).returncode == 0
    assert all((tmp_path / "theirs" / name).read_bytes() == body for name, body in FILES.items())
    assert "GatedRepoError" in hf("owner/gated", tmp_path / "gated").stderr
    assert "401" in hf("owner/none", tmp_path / "none").stderr
    downloads.folder = tmp_path / "theirs"
    value = json.loads(downloads.run("--json").stdout)
    assert (value["checked_files"], value["fetched_files"]) == (3, 0)
