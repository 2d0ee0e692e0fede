"""The real requests by which the supervisor finds out whether a program does its work: one token, one picture, each rank's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.engine import weight_sockets
from qwen_fp8_ops.gate.routes import PROBE_HEADER
from qwen_fp8_ops.outside import http
from qwen_fp8_ops.outside.http import Answer
from qwen_fp8_ops.plan.program import Program

LONGEST_REASON = 300
TIMED_OUT = "timed out"
"""What ``outside.http`` and the socket say of it."""


@dataclass(frozen=True)
class Reply:
    """``answered``: the program is at work, though it may have said no; ``problem`` tells what is wrong all the same. The tokens
    are what the question cost the engine.
    """

    answered: bool
    problem: str = ""
    prompt_tokens: int = 0
    generation_tokens: int = 0


def ask_token(engine: Program, *, key: str, patience_seconds: float, picture_url: str = "") -> Reply:
    """Have the engine write one token, if asked so after it looked at a picture that it fetches itself."""
    content: Any = "Hi"
    if picture_url:
        content = [{"type": "image_url", "image_url": {"url": picture_url}}, {"type": "text", "text": "Hi"}]
    question = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
    answer = http.post(f"{engine.url}/chat/completions", question, timeout=patience_seconds, key=key, headers={PROBE_HEADER: "1"})
    if answer.problem == TIMED_OUT:
        return Reply(False)  # a long queue does that too; whether anything moves tells them apart
    if not answer.ok:
        problem = f"a picture of the media server is not read: {_reason(answer)}" if picture_url else f"a request of one token fails: {_reason(answer)}"
        # A text of ours that is refused (4xx) is answered: the engine lives and says no. With a picture that is the finding.
        refused = answer.status is not None and answer.status < 500
        return Reply(refused, "" if refused and not picture_url else problem)
    told = answer.json()
    usage = told.get("usage") if isinstance(told, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    return Reply(True, "", int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0))


def ask_picture(url: str, *, patience_seconds: float) -> Reply:
    """Have the media server send its probe picture, which it does only when it can read its folder."""
    answer = http.get(url, timeout=patience_seconds)
    return Reply(answer.status is not None, "" if answer.ok else f"{url} is not served: {_reason(answer)}")


def ask_weights(cache: Program, *, patience_seconds: float) -> Reply:
    """Have each rank of the weight cache say how much it holds."""
    try:
        return Reply(True, weight_sockets.answers(Path(cache.sockets), patience_seconds))
    except TimeoutError:
        return Reply(False)


def _reason(answer: Answer) -> str:
    told = answer.json()
    error = told.get("error") if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return (answer.problem or f"status {answer.status}" + (f", {message}" if message else ""))[:LONGEST_REASON]
