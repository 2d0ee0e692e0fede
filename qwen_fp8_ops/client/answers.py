"""What comes back: bytes of the OpenAI protocol in, frozen records out. Pure, shared by blocking and asynchronous clients.

vLLM calls thinking ``reasoning``; it called it ``reasoning_content`` before, and other servers still do. Both are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen_fp8_ops.client.failures import bad_answer, broken_answer, http_failure
from qwen_fp8_ops.client.sse import SseDecoder


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class ToolCall:
    """``arguments`` is JSON text as the model wrote it, which need not be valid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One whole answer. ``finish_reason`` is stop, length (cut by the token limit), tool_calls or what else the server says."""

    answer: str
    reasoning: str
    finish_reason: str | None
    usage: Usage | None
    tool_calls: tuple[ToolCall, ...]
    model: str
    request_id: str


@dataclass(frozen=True)
class Delta:
    """A piece of an answer that is on its way."""

    kind: Literal["reasoning", "answer"]
    text: str


def read_reply(body: bytes, headers: Mapping[str, str], root: str) -> Reply:
    """A complete answer of POST /chat/completions.

    Raises:
        ApiError: it is not one (code ``bad-answer``).
    """
    value = _json(body, root)
    choice = _first_choice(value, root)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise bad_answer(root, f"no message in {body[:200].decode('utf-8', 'replace')}")
    calls = [_tool_call(call) for call in message.get("tool_calls") or [] if isinstance(call, dict)]
    return Reply(
        answer=_text(message, "content"),
        reasoning=_reasoning(message),
        finish_reason=_text(choice, "finish_reason") or None,
        usage=_usage(value),
        tool_calls=tuple(calls),
        model=_text(value, "model"),
        request_id=_request_id(value, headers),
    )


def read_models(body: bytes, root: str) -> tuple[str, ...]:
    """The names that GET /models lists.

    Raises:
        ApiError: it is not such a list (code ``bad-answer``).
    """
    entries = _json(body, root).get("data")
    if not isinstance(entries, list):
        raise bad_answer(root, f"no list of models in {body[:200].decode('utf-8', 'replace')}")
    return tuple(_text(entry, "id") for entry in entries if isinstance(entry, dict))


@dataclass
class Gatherer:
    """Puts a streamed answer together: ``feed`` gives the pieces as they come, ``reply`` the whole at the end.

    Raises (both):
        ApiError: the server reported a failure in the stream; it is not the OpenAI protocol; ``reply``: it ended too early.
    """

    root: str
    headers: Mapping[str, str]
    _sse: SseDecoder = field(default_factory=SseDecoder)
    _texts: dict[str, list[str]] = field(default_factory=lambda: {"reasoning": [], "answer": []})
    _calls: dict[int, ToolCall] = field(default_factory=dict)
    _finish_reason: str | None = None
    _usage: Usage | None = None
    _model: str = ""
    _id: str = ""
    _done: bool = False

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        for data in self._sse.feed(chunk):
            if data == "[DONE]":
                self._done = True
            elif not self._done:
                yield from self._take(data)

    def _take(self, data: str) -> Iterator[Delta]:
        value = _json(data.encode(), self.root)
        if value.get("error"):
            error = value["error"]
            code = error.get("code") if isinstance(error, dict) else None
            raise http_failure(code if isinstance(code, int) and 400 <= code < 600 else 500, {}, data.encode(), self.root)
        self._model = _text(value, "model") or self._model
        self._id = _request_id(value, self.headers) or self._id
        self._usage = _usage(value) or self._usage
        choice = _first_choice(value, self.root)
        if choice is None:
            return  # the last chunk carries the usage and no choice
        self._finish_reason = _text(choice, "finish_reason") or self._finish_reason
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            return
        for call in piece.get("tool_calls") or []:
            if isinstance(call, dict):
                self._add_call(call)
        for delta in (Delta("reasoning", _reasoning(piece)), Delta("answer", _text(piece, "content"))):
            if delta.text:
                self._texts[delta.kind].append(delta.text)
                yield delta

    def _add_call(self, piece: dict[str, Any]) -> None:
        """The first piece of a call names it; its arguments come in parts."""
        index = piece.get("index")
        number = index if isinstance(index, int) else 0
        new, old = _tool_call(piece), self._calls.get(number, ToolCall("", "", ""))
        self._calls[number] = ToolCall(old.id or new.id, old.name or new.name, old.arguments + new.arguments)

    def reply(self) -> Reply:
        if not self._done and self._finish_reason is None:
            raise broken_answer(self.root, "the stream ended in the middle")
        calls = tuple(self._calls[number] for number in sorted(self._calls))
        return Reply(
            answer="".join(self._texts["answer"]),
            reasoning="".join(self._texts["reasoning"]),
            finish_reason=self._finish_reason,
            usage=self._usage,
            tool_calls=calls,
            model=self._model,
            request_id=self._id,
        )


def _json(body: bytes, root: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise bad_answer(root, body[:200].decode("utf-8", "replace") or "an empty body")
    return value


def _first_choice(value: dict[str, Any], root: str) -> dict[str, Any] | None:
    choices = value.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise bad_answer(root, f"no choices in {json.dumps(value)[:200]}")
    return choices[0] if choices else None


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _reasoning(message: Mapping[str, Any]) -> str:
    return _text(message, "reasoning") or _text(message, "reasoning_content")


def _tool_call(value: Mapping[str, Any]) -> ToolCall:
    function = value.get("function")
    function = function if isinstance(function, dict) else {}
    return ToolCall(_text(value, "id"), _text(function, "name"), _text(function, "arguments"))


def _usage(value: Mapping[str, Any]) -> Usage | None:
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    return Usage(*(count if isinstance(count, int) else 0 for count in counts))


def _request_id(value: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The id that the server's own log knows the request by."""
    return headers.get("x-request-id") or _text(value, "id")
