"""How an answer is shown as it comes: the answer on stdout, the thinking dim on stderr, and only where that is a terminal."""

from __future__ import annotations

import os
import sys

from qwen_fp8_ops.client.answers import Delta

DIM, PLAIN = "\033[2m", "\033[0m"
STEERING = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""Control characters: a model that repeats what stands in an image must not move the cursor or rename the window."""


class Screen:
    """For one answer. ``answer`` is what was shown of it so far, which is all there is when it was stopped."""

    def __init__(self, *, show_thinking: bool) -> None:
        self.answer = ""
        self._show_thinking = show_thinking and sys.stderr.isatty()
        self._for_eyes = sys.stdout.isatty()
        styled = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._before, self._after = (DIM, PLAIN + "\n\n") if styled else ("[thinking]\n", "\n[end of thinking]\n")
        self._thinking = False

    def show(self, delta: Delta) -> None:
        if delta.kind == "reasoning":
            self._show_reasoning(delta.text)
            return
        # The model puts empty lines between its thinking and its answer.
        text = delta.text if self.answer else delta.text.lstrip("\n")
        if not text:
            return
        self._end_thinking()
        self.answer += text
        print(text.translate(STEERING) if self._for_eyes else text, end="", flush=True)

    def _show_reasoning(self, text: str) -> None:
        if self._show_thinking:
            before = "" if self._thinking else self._before
            self._thinking = True
            print(before + text.translate(STEERING), end="", file=sys.stderr, flush=True)

    def _end_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            print(self._after, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was, at the beginning of a line."""
        self._end_thinking()
        if self.answer and not self.answer.endswith("\n"):
            print(flush=True)
