"""Puts real questions to one program, in a thread of its own: an answer may take as long as the queue before it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.service.pulse import Pulse
from qwen_fp8_ops.service.questions import Reply

PICTURE_EVERY = 10
FAILURES_UNTIL_TOLD = 2


class Line:
    """Questions of one kind: how many failed in a row, and the latest reason."""

    def __init__(self, put: Callable[[], Reply]) -> None:
        self.put = put
        self.failures = 0
        self.problem = ""

    def take(self, reply: Reply) -> None:
        self.failures = self.failures + 1 if reply.problem else 0
        self.problem = reply.problem


class Asker(threading.Thread):
    """One question at a time, each when ``ask`` says so. The first is with a picture, and every tenth after it; one that failed is
    put again at the next but one, so that a picture's trouble never hides whether the engine itself answers.

    ``is_waiting``: a question is out. ``prompt_tokens`` and ``generation_tokens``: what all questions have cost the engine.
    """

    def __init__(self, name: str, pulse: Pulse, plain: Callable[[], Reply], with_picture: Callable[[], Reply] | None = None) -> None:
        super().__init__(name=f"ask-{name}", daemon=True)
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.is_waiting = False
        self._pulse = pulse
        self._plain = Line(plain)
        self._picture = Line(with_picture) if with_picture else None
        self._until_picture = 0
        self._due = threading.Event()
        self._cancelled = False

    @property
    def problem(self) -> str:
        """What is wrong; empty when nothing is, or it was so only once."""
        lines = [self._plain, *([self._picture] if self._picture else [])]
        return next((line.problem for line in lines if line.failures >= FAILURES_UNTIL_TOLD), "")

    def ask(self) -> None:
        """It is time for another question, once the one before is answered."""
        self._due.set()

    def cancel(self) -> None:
        self._cancelled = True
        self._due.set()

    def run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._cancelled:
                return
            self._put()

    def _put(self) -> None:
        line = self._next()
        self._pulse.asked(clock.monotonic())
        self.is_waiting = True
        reply = line.put()
        self.is_waiting = False
        self.prompt_tokens += reply.prompt_tokens
        self.generation_tokens += reply.generation_tokens
        if reply.answered:
            self._pulse.answered(clock.monotonic())
        line.take(reply)
        if line is self._picture and reply.problem:
            self._until_picture = 1

    def _next(self) -> Line:
        if self._picture is None or self._until_picture > 0:
            self._until_picture -= 1
            return self._plain
        self._until_picture = PICTURE_EVERY - 1
        return self._picture
