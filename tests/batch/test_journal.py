from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_fp8_ops.client.answers import Usage
from qwen_fp8_ops.client.batch.item import Failure, Item, Outcome, Print, Recipe, Source
from qwen_fp8_ops.client.batch.journal import Journal, lock_of
from qwen_fp8_ops.client.batch.records import Records
from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.outside import lock, process
from tests.batch.scenery import RECIPE

TEXT = st.text(max_size=30)
OUTCOMES = st.builds(
    Outcome,
    id=st.text(min_size=1, max_size=8),
    asked=st.just("a"),
    prints=st.lists(st.builds(Print, TEXT, st.integers(0, 2**60), st.integers(0, 2**62)), max_size=2).map(tuple),
    answer=TEXT,
    reasoning=TEXT,
    finish_reason=st.sampled_from(["stop", "length", None]),
    usage=st.none() | st.builds(lambda prompt, completion: Usage(prompt, completion, prompt + completion), st.integers(0, 9), st.integers(0, 9)),
    tries=st.integers(0, 9),
) | st.builds(Outcome, id=st.text(min_size=1, max_size=8), asked=st.just("a"), failure=st.builds(Failure, TEXT, TEXT, st.none() | st.integers(400, 599)))


def outcome(id: str, answer: str = "yes") -> Outcome:
    return Outcome(id, "asked", answer=answer, finish_reason="stop", usage=Usage(1, 2, 3))


def write(path: Path, outcomes: list[Outcome]) -> bytes:
    path.unlink(missing_ok=True)
    with Journal(path, RECIPE) as journal:
        for each in outcomes:
            journal.append(each)
    return path.read_bytes()


@settings(max_examples=80)
@given(outcomes=st.lists(OUTCOMES, max_size=6), data=st.data())
def test_wherever_it_is_cut_whole_lines_stay_and_it_can_be_written_on(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.journal.jsonl"
    whole = write(path, outcomes)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    left = outcomes[: max(0, whole[:cut].count(b"\n") - 1)]
    latest = {each.id: each for each in left}
    more = outcome("one more")
    with Journal(path, RECIPE) as journal:
        assert {id: journal.find(id) for id in latest} == latest
        assert len(journal) == len(latest)
        journal.append(more)
        assert journal.find(more.id) == more
    with Records(path) as records:
        assert {each.id: each for each in records} == latest | {more.id: more}
        assert len(list(records)) == len(records)
        assert records.damaged == 0


@settings(max_examples=50)
@given(outcomes=st.lists(OUTCOMES, min_size=1, max_size=5), data=st.data())
def test_damage_in_the_middle_costs_only_the_lines_it_touches(tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome], data: st.DataObject) -> None:
    outcomes = list({each.id: each for each in outcomes}.values())
    path = tmp_path_factory.getbasetemp() / "damaged.journal.jsonl"
    lines = write(path, outcomes).splitlines(keepends=True)
    victim = data.draw(st.integers(1, len(lines) - 1))
    noise = data.draw(st.binary(max_size=20).filter(lambda noise: b"\n" not in noise))
    lines[victim] = b"\x00" + noise + b"\n"
    path.write_bytes(b"".join(lines))
    with Records(path) as records:
        assert list(records) == [each for number, each in enumerate(outcomes, 1) if number != victim]
        assert records.damaged == 1


def test_the_latest_outcome_counts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    failure = Outcome("b", "asked", failure=Failure("server-error", "it failed", 500))
    write(path, [outcome("a", "old"), failure, outcome("a", "new"), outcome("c" * 9000, "long" * 9000)])
    with Records(path) as records:
        assert [each.answer for each in records] == ["", "new", "long" * 9000]
        assert records.find("b") == failure
        assert records.find("nobody") is None


def test_half_a_surrogate_pair_comes_back_as_it_was(tmp_path: Path) -> None:
    odd = outcome("a", "half \ud83d of it")
    write(tmp_path / "j", [odd, outcome("b")])
    with Records(tmp_path / "j") as records:
        assert records.find("a") == odd
        assert records.find("b") == outcome("b")


def test_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "j"
    before = write(path, [outcome("a")])
    other = Recipe("caption", "another model", "Look closely.", sampling={"max_tokens": 99, "temperature": 0}, max_pixels=RECIPE.max_pixels)
    with pytest.raises(ConfigError) as caught:
        Journal(path, other)
    assert caught.value.code == "other-recipe"
    for words in (
        "model: 'demo/little-model' -> 'another model'",
        "prompt: 'Look.' -> 'Look closely.'",
        "max_tokens: 9 -> 99",
    ):
        assert words in caught.value.message
    assert "temperature" not in caught.value.message
    assert "--overwrite" in caught.value.fix
    assert path.read_bytes() == before
    with Journal(path, other, overwrite=True) as journal:
        assert len(journal) == 0


def test_only_one_process_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, RECIPE):
        program = f"from pathlib import Path\nfrom qwen_fp8_ops.client.batch.journal import *\nJournal(Path({str(path)!r}), Recipe('', '', ''))"
        other = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
        assert f"Process {os.getpid()} writes" in other.stderr
    with Journal(path, RECIPE):
        pass


def test_a_writer_of_another_host_is_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "it's" / "j"
    path.parent.mkdir()
    stranger = process.Identity("node042", "boot", 4711, 1, "99")
    lock.acquire(lock_of(path), stranger)
    with pytest.raises(OpsError) as caught:
        Journal(path, RECIPE)
    assert caught.value.code == "journal-in-use"
    assert "node042 (pid 4711, job 99)" in caught.value.message
    assert shlex.split(caught.value.fix.partition(": ")[2]) == ["rm", str(lock_of(path))]


def test_a_job_that_slurm_starts_again_on_another_node_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    write(path, [outcome("a")])
    lock.acquire(lock_of(path), process.Identity("node042", "boot", 4711, 1, "99"))
    for job_id, restarts in (("99", "0"), ("98", "1")):
        monkeypatch.setenv("SLURM_JOB_ID", job_id)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        with pytest.raises(OpsError, match="node042"):
            Journal(path, RECIPE)
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    with Journal(path, RECIPE) as journal:
        assert journal.find("a") == outcome("a")


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text('{"my": "data"}\n')
    with pytest.raises(OpsError) as caught:
        Journal(path, RECIPE)
    assert caught.value.code == "damaged-file"
    assert path.read_text() == '{"my": "data"}\n'
    assert lock.holder(lock_of(path)) is None


def test_a_full_disk_is_told_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    write_bytes = os.write
    with Journal(path, RECIPE) as journal:
        journal.append(outcome("a"))
        monkeypatch.setattr(os, "write", lambda descriptor, data: write_bytes(descriptor, data[:10]))
        with pytest.raises(OpsError, match="No space left"):
            journal.append(outcome("b"))
        monkeypatch.undo()
        journal.append(outcome("c"))  # one that was on its way comes back when there is room again
        assert journal.find("c") == outcome("c")
    with Journal(path, RECIPE) as journal:
        assert [each.id for each in journal] == ["a", "c"]
        assert journal.damaged == 0


def test_every_parameter_and_every_prompt_makes_another_request() -> None:
    item = Item("a", "Look.", (Source("a.png"),))
    changes = [{"model": "m"}, {"sampling": {"max_tokens": 10, "temperature": 0}}, {"system": "Be brief."}, {"max_pixels": 5}, {"details": {"repeat": 3}}]
    recipes = [Recipe(**{**RECIPE.as_json(), **change}) for change in changes]
    names = [RECIPE.asked(item), *(recipe.asked(item) for recipe in recipes)]
    names += [RECIPE.asked(Item("a", "Look!", item.media)), RECIPE.asked(Item("a", "Look.", item.media, seed=1))]
    assert len(set(names)) == len(names)
    assert RECIPE.asked(Item("elsewhere", "Look.", (Source("b.png"),))) == names[0]  # the file is known by its content
    assert Recipe.from_json(json.loads(json.dumps(RECIPE.as_json()))) == RECIPE
