"""Runs that end before their time: killed, interrupted, out of time; and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest

from qwen_fp8_ops.client.async_api import Endpoint
from qwen_fp8_ops.client.batch.journal import Journal
from qwen_fp8_ops.client.batch.records import Records
from qwen_fp8_ops.client.batch.run import carry_out
from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.client.request import Limits
from tests.batch.quick_server import Ask, Say, answer, by_content, serving
from tests.batch.scenery import CHECKOUT, RECIPE, Captioner, call, make_images, options, outcomes, run_batch, texts, told
from tests.waiting import wait_for

KILLS = 4


def test_killed_at_any_moment_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """No item is lost, none is written twice, and what was kept is not asked again."""
    random = Random("kill")
    images = make_images(tmp_path / "images", 40)
    with serving(lambda ask: answer(f"a {len(ask.body)} {hash(ask.picture) % 1000}", pause=0.05)) as server:
        undisturbed = Captioner(images, tmp_path / "undisturbed", server.url)
        assert undisturbed.run("--concurrency", "3").returncode == 0
        asked = server.asked
        assert asked == 40
        killed = Captioner(images, tmp_path / "killed", server.url)
        journal = killed.file("_simple.journal.jsonl")
        for kill in range(KILLS):
            process = killed.spawn("--concurrency", "3")
            until = (kill + 1) * 7 + random.randrange(7)
            wait_for(lambda until=until: journal.exists() and journal.read_bytes().count(b"\n") > until, "some are done", 120)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        with Records(journal) as records:
            kept = len(records)
        left = killed.run("--concurrency", "3")
        assert left.returncode == 0, left.stderr
        assert f"{kept} done before" in left.stderr
        assert killed.file().read_bytes() == undisturbed.file().read_bytes()
        ids = [json.loads(line)["id"] for line in journal.read_text().splitlines()[1:]]
        assert sorted(ids) == sorted(path.name for path in images.iterdir())
        assert server.asked - asked <= 40 + 3 * KILLS  # what was on its way


def test_ctrl_c_finishes_what_is_on_its_way_and_saves(tmp_path: Path) -> None:
    with serving(lambda ask: answer("yes", pause=0.3)) as server:
        captioner = Captioner(make_images(tmp_path / "images", 200), tmp_path / "output", server.url)
        process = captioner.spawn("--concurrency", "4", "--overwrite")
        wait_for(lambda: server.asked > 8 and server.at_once == 4, "it works", 120)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "4 requests are on their way and are waited for" in err
        assert "The same command without --overwrite goes on from here" in err  # with it, all of this would be lost
        assert len(captioner.captions) == server.asked
    with serving(lambda ask: Say(hang=True)) as server:
        captioner.url = server.url
        process = captioner.spawn("--concurrency", "4")
        wait_for(lambda: server.at_once == 4, "it waits for an answer", 120)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 130


def test_ctrl_c_that_ends_the_reader_first_is_still_heard(tmp_path: Path) -> None:
    """As in ``qwen-fp8 caption ... 2>&1 | tee log``: tee dies of the same Ctrl+C."""
    with serving(lambda ask: answer("yes", pause=0.3)) as server:
        captioner = Captioner(make_images(tmp_path / "images", 200), tmp_path / "output", server.url)
        process = captioner.spawn("--concurrency", "2")
        assert process.stderr and process.stdout
        wait_for(lambda: server.asked > 4, "it works", 120)
        process.stderr.close()
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert server.asked < 150
        assert len(captioner.captions) == server.asked


def test_a_full_disk_behind_stdout_is_told_and_costs_no_result(captioner: Captioner) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "qwen_fp8_ops", "caption", *call(captioner)]
        done = subprocess.run(command, cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert "Error: The result cannot be printed: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(captioner.captions) == 12


def test_with_closed_streams_it_works_and_writes_into_no_file_of_ours(captioner: Captioner) -> None:
    command = [sys.executable, "-m", "qwen_fp8_ops", "caption", *call(captioner)]
    done = subprocess.run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *command], cwd=CHECKOUT, timeout=120)
    assert done.returncode == 0
    assert len(captioner.captions) == 12
    assert len(captioner.file("_simple.journal.jsonl").read_text().splitlines()) == 13


def test_the_end_of_a_job_that_is_over_ends_nothing(captioner: Captioner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1700000000")
    assert told(capsys, *call(captioner))[0] == 0
    assert len(captioner.captions) == 12


def test_a_third_ctrl_c_does_not_hit_what_the_second_one_left_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, saving = Journal.sync, threading.Event()

    def interrupted_sync(journal: Journal) -> None:
        if saving.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        sync(journal)

    def press_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: any("Ctrl+C again" in line for line in said), "the first was heard")
        saving.set()
        os.kill(os.getpid(), signal.SIGINT)

    def script(ask: Ask) -> Say:
        if ask.number == 5:
            threading.Thread(target=press_twice).start()
        return by_content(ask) if ask.number < 5 else Say(hang=True)

    monkeypatch.setattr(Journal, "sync", interrupted_sync)
    said: list[str] = []
    tally = Tally()
    with serving(script) as server:
        journal = Journal(tmp_path / "j", RECIPE)
        carry_out(texts(20), RECIPE, journal, lambda: Endpoint(server.url), options(concurrency=1), tally, said.append)
        saving.clear()
        journal.close()
    assert (tally.interrupted, tally.answered) == (True, 5)


def test_the_end_of_our_own_job_is_kept_in_mind(tmp_path: Path) -> None:
    with serving(lambda ask: answer("x", pause=0.05)) as server:
        tally, said = run_batch(tmp_path / "j", server.url, texts(1000), ends_at=time.time() + 61)
    assert tally.interrupted
    assert "Stopping: this job's time is nearly over." in said
    assert 0 < tally.answered < 1000
    assert len(outcomes(tmp_path / "j")) == tally.answered


def test_what_does_not_come_before_the_end_of_our_own_job_is_given_up(tmp_path: Path) -> None:
    """SLURM would kill us while we wait for it, and nothing would be published."""
    with serving(lambda ask: answer("x") if ask.number < 5 else Say(hang=True)) as server:
        tally, said = run_batch(tmp_path / "j", server.url, texts(20), ends_at=time.time() + 31.5, limits=Limits(read_seconds=20))
    assert said[-1] == "Giving up 4 requests that are still on their way: this job's time is over."
    assert (tally.interrupted, tally.answered, len(outcomes(tmp_path / "j"))) == (True, 5, 5)
