"""The only door of the client room: one OpenAI-compatible API, known by its address, a model's name and a key.

    with Api("http://127.0.0.1:8010/v1", key=key) as api:
        for piece in api.stream([{"role": "user", "content": "Hello"}], max_tokens=100):
            ...                                 # Delta, Delta, ..., and last the whole Reply

Only what waits for the network is here. What is sent (request), read (answers, sse) and said when it fails (failures) is pure, so
that an asynchronous door needs nothing but its own ``await``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from qwen_fp8_ops.client.answers import Delta, Gatherer, Reply, read_models, read_reply
from qwen_fp8_ops.client.failures import bad_answer, http_failure, transport_failure
from qwen_fp8_ops.client.request import DEFAULT_LIMITS, Limits, Message, api_root, chat_body, headers

CHAT = "/chat/completions"
MODELS = "/models"


class Api:
    """Keeps its connections open between requests, may be used by several threads, and is closed at the end.

    Args:
        base_url: with or without ``/v1``.
        model: None leaves the name out of requests; a vLLM server then takes its only model.

    Raises:
        ConfigError: the address or the key cannot be used.
    """

    def __init__(self, base_url: str, *, model: str | None = None, key: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.root = api_root(base_url)
        self.model = model
        self.limits = limits
        self._http = httpx.Client(**client_options(self.root, key, limits))

    def models(self) -> tuple[str, ...]:
        """The names the server answers to.

        Raises:
            ApiError: see ``client.failures``.
        """
        return read_models(self._ask("GET", MODELS, None).content, self.root)

    def chat(self, messages: Sequence[Message], **sampling: Any) -> Reply:
        """One answer, whole. ``sampling`` goes into the request as it is (max_tokens, temperature, tools, ...), None is left out.

        Raises:
            ApiError: see ``client.failures``.
        """
        answer = self._ask("POST", CHAT, chat_body(messages, model=self.model, stream=False, sampling=sampling))
        return read_reply(answer.content, answer.headers, self.root)

    def stream(self, messages: Sequence[Message], **sampling: Any) -> Generator[Delta | Reply, None, None]:
        """The answer in pieces as they come, then the whole ``Reply``, which is always the last item.

        Closing the generator (``contextlib.closing``) closes the connection, and so the server stops working on the answer.

        Raises:
            ApiError: see ``client.failures``; pieces may have come before it.
        """
        body = chat_body(messages, model=self.model, stream=True, sampling=sampling)
        with self._explained(), self._http.stream("POST", CHAT, content=body) as answer:
            if not answer.is_success:
                raise http_failure(answer.status_code, answer.headers, answer.read(), self.root)
            check_stream(answer.headers.get("content-type", ""), self.root)
            gatherer = Gatherer(self.root, answer.headers)
            for chunk in answer.iter_bytes():
                yield from gatherer.feed(chunk)
            yield gatherer.reply()

    def _ask(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        with self._explained():
            answer = self._http.request(method, path, content=body)
        if not answer.is_success:
            raise http_failure(answer.status_code, answer.headers, answer.content, self.root)
        return answer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.RequestError as error:
            raise transport_failure(error, self.root, self.limits) from error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def client_options(root: str, key: str, limits: Limits) -> dict[str, Any]:
    """Arguments of an httpx client, blocking or asynchronous."""
    return {
        "base_url": root,
        "headers": headers(key),
        "timeout": httpx.Timeout(connect=limits.connect_seconds, read=limits.read_seconds, write=limits.write_seconds, pool=limits.read_seconds),
        # A cluster's http_proxy does not reach its own nodes, so plain http goes straight; https may lie outside.
        "trust_env": root.startswith("https:"),
    }


def check_stream(content_type: str, root: str) -> None:
    """
    Raises:
        ApiError: the answer is not an event stream (code ``bad-answer``).
    """
    if content_type.partition(";")[0].strip().lower() != "text/event-stream":
        raise bad_answer(root, f"a stream was asked for, {content_type or 'an answer without a type'} came")
