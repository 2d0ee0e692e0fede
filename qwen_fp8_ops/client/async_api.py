"""The door of ``api.py`` for programs that keep many requests on their way at once. What is sent, read and said is the same.

async with AsyncApi("http://127.0.0.1:8010/v1", key=key) as api:
    reply = await api.chat([{"role": "user", "content": "Hello"}], max_tokens=100)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from qwen_fp8_ops.client.answers import Reply, read_models, read_reply
from qwen_fp8_ops.client.api import CHAT, MODELS, client_options
from qwen_fp8_ops.client.failures import http_failure, transport_failure
from qwen_fp8_ops.client.request import DEFAULT_LIMITS, Limits, Message, api_root, chat_body, headers

PEEK_SECONDS = 10.0
SERVICE_ENDS_AT = "x-service-ends-at"


@dataclass(frozen=True)
class Endpoint:
    """Where an API is, with or without ``/v1``, and the key that it takes; empty for none."""

    url: str
    key: str = ""


class AsyncApi:
    """Keeps its connections open, as many as there are requests at once. Belongs to one event loop, and is closed at the end.

    ``ends_at`` is the moment, ISO 8601, at which the service's allocation ends, as of the latest answer; empty when it told none.

    Raises:
        ConfigError: the address or the key cannot be used.
    """

    def __init__(self, base_url: str, *, model: str | None = None, key: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        self.root = api_root(base_url)
        self.model = model
        self.limits = limits
        self.ends_at = ""
        # By default httpx closes connections beyond twenty, and would open them again for every request.
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.AsyncClient(**client_options(self.root, key, limits), limits=pool)

    def move(self, endpoint: Endpoint) -> None:
        """Send what follows to another place: a service that was started again may have a new address and has a new key.

        Raises:
            ConfigError: the address or the key cannot be used.
        """
        root = api_root(endpoint.url)
        sent = headers(endpoint.key)
        self.root, self._http.base_url = root, httpx.URL(root)
        self._http.headers.pop("Authorization", None)
        self._http.headers.update(sent)

    async def models(self) -> tuple[str, ...]:
        """The names the server answers to.

        Raises:
            ApiError: see ``client.failures``.
        """
        return read_models((await self._ask("GET", MODELS, None)).content, self.root)

    async def chat(self, messages: Sequence[Message], **sampling: Any) -> Reply:
        """One answer, whole; see ``Api.chat``.

        Raises:
            ApiError: see ``client.failures``.
        """
        return await self.send(chat_body(messages, model=self.model, stream=False, sampling=sampling))

    async def send(self, body: bytes) -> Reply:
        """The same for a body from ``request.chat_body``, which may have been made in another thread.

        Raises:
            ApiError: see ``client.failures``.
        """
        answer = await self._ask("POST", CHAT, body)
        self.ends_at = answer.headers.get(SERVICE_ENDS_AT, "")
        return read_reply(answer.content, answer.headers, self.root)

    async def peek(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page beside the API (/service, /health, /metrics), whatever it says; not longer than a few seconds.

        Raises:
            ApiError: there is no answer.
        """
        try:
            answer = await self._http.get(self.root.removesuffix("/v1") + path, timeout=PEEK_SECONDS)
        except httpx.RequestError as error:
            raise transport_failure(error, self.root, Limits(PEEK_SECONDS, PEEK_SECONDS, PEEK_SECONDS)) from error
        return answer.status_code, answer.content

    async def _ask(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        root = self.root
        try:
            answer = await self._http.request(method, path, content=body)
        except httpx.RequestError as error:
            raise transport_failure(error, root, self.limits) from error
        if not answer.is_success:
            raise http_failure(answer.status_code, answer.headers, answer.content, root)
        return answer

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()
