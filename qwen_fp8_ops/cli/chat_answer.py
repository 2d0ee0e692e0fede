"""One answer for ``chat``: asked for, timed, and rendered as JSON and as notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from qwen_fp8_ops.client.answers import Delta, Reply
from qwen_fp8_ops.client.api import Api
from qwen_fp8_ops.client.messages import Part
from qwen_fp8_ops.outside import clock

SCHEMA = 1


@dataclass(frozen=True)
class Answer:
    """``ttft_seconds``: until the first piece of thinking or answer; None when nothing was streamed."""

    reply: Reply
    seconds: float
    ttft_seconds: float | None


def get_answer(api: Api, messages: Sequence[Part], sampling: dict[str, Any], show: Callable[[Delta], None], *, streamed: bool) -> Answer:
    """Ask and show each piece. Whatever interrupts this closes the connection, and the server gives the answer up.

    Raises:
        ApiError: see ``client.failures``.
    """
    began = clock.monotonic()
    if not streamed:
        reply = api.chat(messages, **sampling)
        seconds = clock.monotonic() - began
        show(Delta("reasoning", reply.reasoning))
        show(Delta("answer", reply.answer))
        return Answer(reply, seconds, None)
    first = None
    with closing(api.stream(messages, **sampling)) as pieces:
        for piece in pieces:
            if isinstance(piece, Delta):
                first = clock.monotonic() - began if first is None else first
                show(piece)
            else:
                reply = piece
    return Answer(reply, clock.monotonic() - began, first)


def notes(answer: Answer, *, verbose: bool) -> list[str]:
    """What a person should know beside the answer itself."""
    reply, lines = answer.reply, []
    if reply.finish_reason == "length":
        what = "The answer was" if reply.answer.strip() else "The model was still thinking when it was"
        lines.append(f"note: {what} cut by the token limit (finish_reason length). Allow more with --max-tokens, or MAX_TOKENS in config.env.")
    if verbose:
        tokens = f"{reply.usage.prompt_tokens} + {reply.usage.completion_tokens} tokens, " if reply.usage else ""
        first = f"the first after {answer.ttft_seconds:.2f} s, " if answer.ttft_seconds is not None else ""
        lines.append(f"{reply.model}: {tokens}{first}{answer.seconds:.2f} s in all, request {reply.request_id}")
    return lines


def as_json(answer: Answer, *, show_thinking: bool) -> dict[str, Any]:
    reply = answer.reply
    return {
        "schema": SCHEMA,
        "ok": True,
        "answer": reply.answer,
        "reasoning": reply.reasoning if show_thinking else None,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage) if reply.usage else None,
        "model": reply.model,
        "request_id": reply.request_id,
        "seconds": round(answer.seconds, 3),
        "ttft_seconds": round(answer.ttft_seconds, 3) if answer.ttft_seconds is not None else None,
    }
