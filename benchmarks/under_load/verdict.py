"""What became of one request, as its client saw it. Pure: bytes in, a verdict out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    WHOLE = "answered whole"
    FAILED = "failed in flight"
    """It was taken in, and its client was told that it failed: an error in place of an answer, in a stream, or a broken connection."""
    REFUSED = "refused with 503"
    UNREACHED = "nobody listened"
    """The connection was refused: it was never taken in."""
    SILENT = "silent"
    """No word within the client's patience, or a stream that ends as if it were whole and is not."""
    WRONG = "wrong"
    """An answer that is not this request's, or one that no fault explains."""


@dataclass(frozen=True)
class Reply:
    """What arrived. ``problem`` is "unreached", "broken", "timed out" or empty; ``request_id`` is the answer's header."""

    status: int | None = None
    body: bytes = b""
    request_id: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Wanted:
    """The answer must be this request's own: its id in header and body, so many tokens written, so many of prompt read (None: not known)."""

    request_id: str
    completion_tokens: int
    prompt_tokens: int | None
    streamed: bool


def judge(reply: Reply, wanted: Wanted) -> tuple[Verdict, str]:
    """The verdict, and the reason where it is not good."""
    if reply.problem == "unreached":
        return Verdict.UNREACHED, ""
    if reply.problem == "timed out":
        return Verdict.SILENT, "no answer within the client's patience"
    if reply.problem:
        return Verdict.FAILED, f"the connection broke{'' if reply.status is None else ' in the middle of the answer'}"
    if reply.status == 503:
        return Verdict.REFUSED, reason(reply.body)
    if reply.status is None or reply.status >= 500:
        return Verdict.FAILED, f"{reply.status}: {reason(reply.body)}"
    if reply.status != 200:
        return Verdict.WRONG, f"{reply.status}: {reason(reply.body)}"
    return judge_answer(reply, wanted)


def judge_answer(reply: Reply, wanted: Wanted) -> tuple[Verdict, str]:
    """Of a 200."""
    events = stream_events(reply.body) if wanted.streamed else [reply.body]
    try:
        parts: list[Any] = [json.loads(event) for event in events if event != b"[DONE]"]
    except ValueError:
        return Verdict.WRONG, "the answer is no JSON"
    if any(isinstance(part, dict) and "error" in part for part in parts):
        return Verdict.FAILED, "an error in the stream"
    if not parts or (wanted.streamed and events[-1] != b"[DONE]"):
        return Verdict.SILENT, "the answer ends too early, without a word"
    last = parts[-1] if isinstance(parts[-1], dict) else {}
    usage = last.get("usage") or {}
    seen = {
        "header": reply.request_id,
        "id": last.get("id"),
        "completion_tokens": usage.get("completion_tokens"),
        "prompt_tokens": usage.get("prompt_tokens"),
    }
    due = {
        "header": wanted.request_id,
        "id": f"chatcmpl-{wanted.request_id}",
        "completion_tokens": wanted.completion_tokens,
        "prompt_tokens": seen["prompt_tokens"] if wanted.prompt_tokens is None else wanted.prompt_tokens,
    }
    wrong = [f"{name} is {seen[name]!r}, not {due[name]!r}" for name in due if seen[name] != due[name]]
    return (Verdict.WRONG, "; ".join(wrong)) if wrong else (Verdict.WHOLE, "")


def stream_events(body: bytes) -> list[bytes]:
    return [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]


def reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
