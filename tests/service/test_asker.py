"""In which order the supervisor's questions are put, and when a failure is told."""

from __future__ import annotations

from qwen_fp8_ops.service.asker import PICTURE_EVERY, Asker
from qwen_fp8_ops.service.pulse import Pulse
from qwen_fp8_ops.service.questions import Reply
from tests.waiting import wait_for

WELL = Reply(True, "", 9, 1)


class Script:
    """Answers questions as it is told, and remembers which were put."""

    def __init__(self) -> None:
        self.put: list[str] = []
        self.replies = {"plain": WELL, "picture": WELL}
        self.asker = Asker("engine0", Pulse(), lambda: self.reply("plain"), lambda: self.reply("picture"))
        self.asker.start()

    def reply(self, kind: str) -> Reply:
        self.put.append(kind)
        return self.replies[kind]

    def ask(self, times: int) -> list[str]:
        """What was put at so many questions."""
        before = len(self.put)
        for number in range(before + 1, before + 1 + times):
            self.asker.ask()
            wait_for(lambda number=number: len(self.put) == number and not self.asker.is_waiting and not self.asker._due.is_set(), "it is asked")
        return self.put[before:]


def test_the_first_question_and_every_tenth_is_with_a_picture() -> None:
    script = Script()
    assert script.ask(21) == (["picture"] + ["plain"] * (PICTURE_EVERY - 1)) * 2 + ["picture"]
    wait_for(lambda: (script.asker.prompt_tokens, script.asker.generation_tokens) == (189, 21), "what all of them cost is counted")
    script.asker.cancel()
    script.asker.join(timeout=30)
    assert not script.asker.is_alive()


def test_a_picture_that_failed_is_asked_for_again_soon_and_the_engine_in_between() -> None:
    script = Script()
    script.replies["picture"] = Reply(True, "no picture")
    assert script.ask(1) == ["picture"]
    assert script.asker.problem == "", "once is nothing"
    assert script.ask(2) == ["plain", "picture"]
    wait_for(lambda: script.asker.problem == "no picture", "it is told")
    script.replies["picture"] = WELL
    assert script.ask(3) == ["plain", "picture", "plain"]
    wait_for(lambda: script.asker.problem == "", "it is well again")
    script.asker.cancel()


def test_without_a_picture_only_plain_questions_are_put() -> None:
    put: list[int] = []
    asker = Asker("media", Pulse(), lambda: (put.append(1), WELL)[1])
    asker.start()
    for number in (1, 2):
        asker.ask()
        wait_for(lambda number=number: len(put) == number, "it is asked")
    asker.cancel()
