"""Requests made from questions: their ids, their texts, and choices that go round."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.inputs import Shard
from qwen_fp8_ops.client.batch.qa.asks import CHOICE_INSTRUCTION, OPEN_INSTRUCTION, Asks
from qwen_fp8_ops.client.batch.qa.choices import find_choices
from qwen_fp8_ops.client.batch.qa.questions import Question, make_questions
from qwen_fp8_ops.client.batch.qa.tables import Row

LETTERS = "ABCDEFGH"


def made(*rows: dict[str, object]) -> tuple[Question, ...]:
    """Questions about this file, which is there and not looked into."""
    common = {"answer": "A", "image": Path(__file__).name}
    sheet = make_questions([Row(number, {"qid": f"q{number}", **common, **row}) for number, row in enumerate(rows, start=1)], Path(__file__).parent)
    assert sheet.bad == ()
    return sheet.questions


def texts(asks: Asks) -> list[str]:
    return [item.prompt for item in asks]


@given(
    st.lists(
        st.one_of(st.text(min_size=1, max_size=15), st.sampled_from(["A. x\nB. y", "red", "(B)", "x;", "none of the above"])),
        min_size=2,
        max_size=8,
        unique=True,
    )
)
def test_every_choice_stands_once_behind_every_letter(choices: list[str]) -> None:
    if any(not text.strip() for text in choices):
        return
    asked = made({"question": "Which?", "choices": choices})
    asks = Asks(asked, Path(), circular=True)
    rotations = [*asks.of(asked[0])]
    assert len(rotations) in (1, len(choices))
    assert [ask.item.prompt for ask in rotations] == texts(asks)
    true = asked[0].told[0]
    for ask in rotations:
        assert ask.choices is not None
        assert ask.letter is not None
        assert ask.choices.text(ask.letter) == true
        assert f"\n{ask.letter}. {true}\n" in ask.item.prompt
        assert sorted(ask.choices.texts) == sorted(asked[0].told)
    if len(rotations) > 1:
        assert [ask.letter for ask in rotations] == [*LETTERS[: len(choices)]]


def test_only_the_choices_move() -> None:
    question = "In (A) and (B) <x>?\n  (A)  one ;\n  (B)  two\n  (C)  three\n\nAnswer with the option letter only."
    rotated = texts(Asks(made({"question": question}), Path(), circular=True))
    assert rotated[0] == question
    assert rotated[1] == question.replace("one", "three", 1).replace("two", "one").replace("(C)  three", "(C)  two")


@given(st.lists(st.text(alphabet="ab#r01.", min_size=1, max_size=6), unique=True, min_size=1, max_size=6), st.integers(1, 3), st.booleans())
def test_no_two_requests_have_one_id(qids: list[str], times: int, circular: bool) -> None:
    asks = Asks(made(*({"qid": qid, "question": "Q\nA. x\nB. y"} for qid in qids)), Path(), times, circular)
    ids = [item.id for item in asks]
    assert len(ids) == len(set(ids)) == asks.count() == len(qids) * times * (2 if circular else 1)


def test_shares_are_whole_questions_and_together_all_of_them() -> None:
    asks = Asks(made(*({"question": f"Q{number}\nA. x\nB. y"} for number in range(40))), Path(), times=3)
    parts = [asks.part(None, Shard(number, 3)) for number in (1, 2, 3)]
    assert all(part.count() % 3 == 0 for part in parts)
    assert sorted(itertools.chain.from_iterable([item.id for item in part] for part in parts)) == sorted(item.id for item in asks)
    assert asks.part(5, None).count() == 15


def test_an_instruction_is_added_where_the_question_has_none() -> None:
    said = [
        "Q\nA. x\nB. y\nAnswer with the option letter only.",
        "Q\nA. x\nB. y\nAnswer in \\boxed{}.",
        "请选择\nA. x\nB. y",
        "Answer with one letter.\nA. x\nB. y",
    ]
    assert texts(Asks(made(*({"question": text} for text in said)), Path())) == said
    unsaid = ["Which letter is longest?\nA. boxed\nB. a letter", "Q\nA. boxed\nB. y"]
    assert texts(Asks(made(*({"question": text} for text in unsaid)), Path())) == [f"{text}\n{CHOICE_INSTRUCTION}" for text in unsaid]
    assert texts(Asks(made({"question": "How many?", "answer": "3"}), Path())) == [f"How many?\n{OPEN_INSTRUCTION}"]
    assert texts(Asks(made({"question": "Q\nA. x\nB. y"}), Path(), instruction="")) == ["Q\nA. x\nB. y"]
    assert texts(Asks(made({"question": said[0]}), Path(), instruction="Quickly!")) == [f"{said[0]}\nQuickly!"]
    assert find_choices(said[0]) is not None
