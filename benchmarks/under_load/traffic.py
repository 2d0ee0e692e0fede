"""Clients that keep a service busy: each asks, waits for the whole answer, and asks again, with another body every time.

The same bytes twice would be the same request, and one that ran at two crashes is refused as poison: that is another test's matter.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.under_load.accounts import Record
from benchmarks.under_load.verdict import Reply, Verdict, Wanted, judge

PAUSE_SECONDS = 0.2
"""Before another try where nobody listens or a 503 says so."""

FORMS = ("plain", "stream")


@dataclass(frozen=True)
class Kind:
    """One sort of request: the parts of its message beside the text, and how often it is chosen."""

    name: str
    parts: tuple[Mapping[str, Any], ...] = ()
    weight: int = 1
    max_tokens: int = 16

    def body(self, model: str, number: int, *, streamed: bool) -> bytes:
        # Every text is of the same length in tokens: the tokenizer takes digits one by one.
        content = [*self.parts, {"type": "text", "text": f"Request {number:08d}: what is to be seen, and what comes next?"}]
        value: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": self.max_tokens, "ignore_eos": True}
        if streamed:
            value |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(value).encode()


@dataclass
class Traffic:
    """``records`` grows while the clients run. ``patience_seconds``: longer than anything but silence lasts."""

    url: str
    model: str
    kinds: Sequence[Kind]
    clients: int
    patience_seconds: float
    seed: int = 0
    records: list[Record] = field(default_factory=list)
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _numbers: Callable[[], int] = field(init=False)

    def __post_init__(self) -> None:
        lock, last = threading.Lock(), [0]

        def number() -> int:
            with lock:
                last[0] += 1
                return last[0]

        self._numbers = number

    def learn(self) -> None:
        """Ask once for each kind, alone: how many tokens its prompt has is what every later answer must say too.

        Raises:
            RuntimeError: one is not answered whole.
        """
        for kind in self.kinds:
            reply, record = self._ask(kind, streamed=False)
            if record.verdict is not Verdict.WHOLE:
                raise RuntimeError(f"{kind.name} is {record.verdict} before anything was done to the service: {record.detail}")
            self.prompt_tokens[kind.name] = json.loads(reply.body)["usage"]["prompt_tokens"]
            self.records.append(record)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._client, args=(random.Random(f"{self.seed}-{number}"),), daemon=True) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let every client finish what it asked."""
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=self.patience_seconds + 60)

    def _client(self, dice: random.Random) -> None:
        while not self._ending.is_set():
            kind = dice.choices(self.kinds, [kind.weight for kind in self.kinds])[0]
            _, record = self._ask(kind, streamed=dice.random() < 0.5)
            self.records.append(record)
            if record.verdict is not Verdict.WHOLE:
                self._ending.wait(PAUSE_SECONDS)

    def _ask(self, kind: Kind, *, streamed: bool) -> tuple[Reply, Record]:
        id, sent = secrets.token_hex(12), time.monotonic()
        reply = exchange(f"{self.url}/v1/chat/completions", kind.body(self.model, self._numbers(), streamed=streamed), id, self.patience_seconds)
        verdict, detail = judge(reply, Wanted(id, kind.max_tokens, self.prompt_tokens.get(kind.name), streamed))
        return reply, Record(id, kind.name, sent, time.monotonic(), reply.status, verdict, detail)


def exchange(url: str, body: bytes | None, id: str, patience_seconds: float) -> Reply:
    """One request over a connection of its own, so that a refused connection and a broken one are told apart. GET without a body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=patience_seconds)
    headers = {"Content-Type": "application/json", "X-Request-Id": id, "Connection": "close"}
    status = None
    try:
        try:
            connection.connect()
        except ConnectionError:
            return Reply(problem="unreached")
        connection.request("POST" if body is not None else "GET", parts.path, body, headers)
        answer = connection.getresponse()
        status = answer.status
        return Reply(status, answer.read(), answer.headers.get("X-Request-Id", ""))
    except TimeoutError:
        return Reply(status, problem="timed out")
    except (OSError, http.client.HTTPException):
        return Reply(status, problem="broken")
    finally:
        connection.close()
