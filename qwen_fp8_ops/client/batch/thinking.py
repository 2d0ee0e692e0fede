"""Thinking and answer, where a server gives both as one text: one without a reasoning parser, or with another name for it."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def split_thinking(text: str) -> tuple[str, str]:
    """Thinking and answer. The chat template of a thinking model opens the thought in the prompt, so that only its end may be there."""
    thought, closed, answer = text.rpartition(CLOSE)
    if closed:
        return thought.strip().removeprefix(OPEN).strip(), answer.lstrip()
    if text.lstrip().startswith(OPEN):  # cut before the thought was over
        return text.strip().removeprefix(OPEN).strip(), ""
    return "", text
