"""One data set in several shares, and the whole that they make."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from qwen_fp8_ops.client.batch.inputs import Selection, Shard
from qwen_fp8_ops.client.batch.journal import lock_of
from qwen_fp8_ops.outside import lock, process
from tests.batch.quick_server import FOLDER, QuickServer, answer
from tests.batch.scenery import Captioner, call, texts, told


def test_shares_hold_every_item_once_and_stay_when_items_are_added() -> None:
    few, many = texts(100), texts(1000)
    shares = [[item.id for item in Selection(many, Shard(number, 7))] for number in range(1, 8)]
    assert sorted(id for share in shares for id in share) == sorted(item.id for item in many)
    assert all(100 < len(share) < 190 for share in shares)
    for of in (2, 4, 8, 16):  # also for names that differ in a digit alone
        counts = [sum(Shard(number, of).holds(f"{name:05d}.jpg") for name in range(1600)) for number in range(1, of + 1)]
        assert min(counts) > 0.6 * 1600 / of
    for number in range(1, 8):
        assert {item.id for item in Selection(few, Shard(number, 7))} <= set(shares[number - 1])
    assert [item.id for item in Selection(few, None, 3)] == ["item 0", "item 1", "item 2"]
    assert Selection(few, None, 3).count() == 3


def test_shares_come_together_as_one_run(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path, server: QuickServer) -> None:
    assert told(capsys, *call(captioner))[0] == 0
    whole = captioner.file().read_bytes()
    (captioner.images / "zzz.png").write_bytes(b"broken")
    shared = Captioner(captioner.images, tmp_path / "shared", captioner.url)
    assert {told(capsys, *call(shared, "--shard", f"{number}/2"))[0] for number in (1, 2)} == {0, 1}  # one of them had the broken one
    first = json.loads(shared.file("_simple.shard-1-of-2.json").read_text())
    second = json.loads(shared.file("_simple.shard-2-of-2.json").read_text())
    assert not set(first) & set(second)
    assert len(first) + len(second) == 12
    asked = server.asked
    code, _, err = told(capsys, "--dataset-path", str(shared.images), "--output-dir", str(shared.output), "--model-name", FOLDER, "--merge")
    assert code == 1  # for the broken one
    assert "12 captions (simple) of 13" in err
    assert shared.file().read_bytes() == whole
    assert server.asked == asked
    # The whole goes on from there, and a share that is missing is told.
    shared.file("_simple.shard-1-of-2.journal.jsonl").unlink()
    shared.file("_simple.journal.jsonl").unlink()
    words = ["--dataset-path", str(shared.images), "--output-dir", str(shared.output), "--model-name", FOLDER, "--merge"]
    code, _, err = told(capsys, *words)
    assert code == 1  # half a data set is not done
    assert "Share 1/2 has left nothing here." in err
    assert f"{len(first)} not done yet" in err or f"{len(first) + 1} not done yet" in err
    assert "The same command without --merge goes on from here." in err
    told(capsys, *call(shared))
    assert shared.file().read_bytes() == whole
    assert told(capsys, *words, "--name", "other")[0] == 1


def test_shares_that_were_done_anew_replace_what_was_put_together_before(captioner: Captioner, capsys: pytest.CaptureFixture[str], server: QuickServer) -> None:
    assert told(capsys, *call(captioner, "--max-tokens", "9"))[0] == 0
    server.script = lambda ask: answer("Once more.")
    for number in (1, 2):
        assert told(capsys, *call(captioner, "--shard", f"{number}/2", "--overwrite"))[0] == 0
    code, _, err = told(capsys, *call(captioner, "--merge"))
    assert (code, "max_tokens: 9 -> 256" in err) == (2, True)
    assert told(capsys, *call(captioner, "--merge", "--overwrite"))[0] == 0
    assert [*captioner.captions.values()] == ["Once more."] * 12
    server.script = lambda ask: answer("And in more shares.")
    for number in (1, 2, 3):
        assert told(capsys, *call(captioner, "--shard", f"{number}/3", "--overwrite"))[0] == 0
    assert told(capsys, *call(captioner, "--merge", "--overwrite"))[0] == 0
    assert [*captioner.captions.values()] == ["And in more shares."] * 12


def test_a_share_that_died_on_another_host_says_how_to_go_on(captioner: Captioner, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, *call(captioner, "--shard", "1/1"))[0] == 0
    left = lock_of(captioner.file("_simple.shard-1-of-1.journal.jsonl"))
    lock.acquire(left, process.Identity("node042", "boot", 4711, 1, "99"))
    code, _, err = told(capsys, *call(captioner, "--merge"))
    assert code == 1
    assert "process 4711 of node042" in err
    assert shlex.split(err.partition("If it died there: ")[2].splitlines()[0]) == ["rm", str(left)]
    left.unlink()
    assert told(capsys, *call(captioner, "--merge"))[0] == 0
