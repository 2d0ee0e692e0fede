"""One request on its way through: what goes in is counted and limited, what comes out is counted and stamped.

``receive`` and ``send`` are what the app gets in place of the server's. A response's body is passed on as it is.
"""

from __future__ import annotations

import asyncio
import time

from qwen_fp8_ops.gate.asgi import Headers, Message, Receive, Scope, Send, send_answer
from qwen_fp8_ops.gate.audit import TAIL_BYTES, Entry
from qwen_fp8_ops.gate.passage import Passage
from qwen_fp8_ops.gate.refusal import TOO_SLOW, Refusal, too_large
from qwen_fp8_ops.gate.splice import splice, undecided

BODY_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 50_000
"""A request's body must be here within so long after the app first asks for it, and as much longer as its bytes take at this
pace; one that drips would keep its memory, and a drain waiting, for ever."""

SKIPPED_BYTES = 65_536
"""A refused request's body of this size at most is left to the server to skip; the connection stays usable."""

LINGER_SECONDS = 5.0
LINGER_BYTES = 64 << 20
"""After refusing a larger one, so much more is read and thrown away before the connection closes: closing with unread data makes
the kernel reset the connection, and a client that is still sending would never see why it was refused."""

STAMPED = (b"x-request-id", b"x-service-ends-at")

ERROR = b'"error"'
"""A member of that name. In an answer's own text the quotes are escaped."""

GONE: Message = {"type": "http.disconnect"}


class Visit:
    """``stamps`` are headers that every answer gets; ``limit_bytes`` is the largest body that may pass; ``passage`` judges the body;
    ``is_probe``: our own supervisor asks, which is nobody's load.
    """

    __slots__ = (
        "_deadline", "_head", "_receive", "_send", "_tail", "_tail_before", "_tail_first", "arrived", "body_done", "bytes_in", "bytes_out",
        "complete", "cut", "gone", "id", "is_probe", "limit_bytes", "passage", "scope", "stamps", "started", "status", "streamed", "who",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, id: bytes, now: float) -> None:
        self.scope = scope
        self.id = id
        self.stamps: Headers = [(b"x-request-id", id)]
        self.limit_bytes = 0
        self.arrived = time.time()
        self.started = now
        self.who: str | None = None
        self.is_probe = False
        self.passage: Passage | None = None
        self.status: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.streamed = False
        self.body_done = False
        self.complete = False
        self.gone = False
        self.cut = False
        self._receive = receive
        self._send = send
        self._deadline: float | None = None
        self._head: Message | None = None
        self._tail_first = self._tail_before = self._tail = b""

    # In ----------------------------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """What the app calls for the request's body and, after it, to hear that the client left."""
        if self._head is not None:
            head, self._head = self._head, None
            return head
        if self.cut:
            return GONE
        if not self.body_done:
            return await self._receive_body()
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.gone = True
        return message

    async def _receive_body(self) -> Message:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            return await self._cut(TOO_SLOW)
        if message["type"] != "http.request":
            self.gone = not self.complete
            self.body_done = True
            return message
        arrived = len(message.get("body", b""))
        self.bytes_in += arrived
        self._deadline += arrived / SLOWEST_BYTES_PER_SECOND
        self.body_done = not message.get("more_body", False)
        if self.bytes_in > self.limit_bytes:
            return await self._cut(too_large(self.limit_bytes))
        if self.passage and (no := self.passage.feed(message.get("body", b""), whole=self.body_done)):
            return await self._cut(no)
        return message

    async def _cut(self, refusal: Refusal) -> Message:
        """End the request here: answer in the app's place if it has not begun to, and tell the app that the client is gone."""
        if self.status is None:
            await self.refuse(refusal)
        self.cut = self.body_done = True
        return GONE

    async def put_default(self, member: bytes) -> int:
        """Hold back the body's first bytes until it is clear what it is, and put ``member`` into the object.

        Returns the bytes that were added; ``cut`` or ``gone`` is set when the body did not come.
        """
        message = await self._receive_body()
        head: bytes = message.get("body", b"")
        while not self.body_done and undecided(head):
            message = await self._receive_body()
            head += message.get("body", b"")
        if self.cut or self.gone:
            return 0
        spliced = splice(head, member)
        self._head = {"type": "http.request", "body": spliced, "more_body": not self.body_done}
        return len(spliced) - len(head)

    # Out ---------------------------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """What the app calls to answer."""
        if self.cut:
            return
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            if body:
                self.bytes_out += len(body)
                # References only: a stream ends in its usage, then [DONE], each a message of its own.
                self._tail_first, self._tail_before, self._tail = self._tail_before, self._tail, body
            await self._send(message)
            if not message.get("more_body", False):
                self.complete = True
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [header for header in message.get("headers", ()) if header[0] not in STAMPED]
            self.streamed = dict(headers).get(b"content-type", b"").startswith(b"text/event-stream")
            headers += self.stamps
            await self._send({**message, "headers": headers})
        else:
            await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer in the app's place, and part from a client that is still sending without losing the answer."""
        self.status = refusal.status
        unread = not self.body_done and self._body_is_large()
        body = refusal.body()
        await send_answer(self._send, refusal.status, [*refusal.all_headers(close=unread), *self.stamps], body, more=unread)
        self.bytes_out = len(body)
        if unread:
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self.complete = True

    def _body_is_large(self) -> bool:
        headers = dict(self.scope["headers"])
        return b"transfer-encoding" in headers or content_length(headers) > SKIPPED_BYTES

    async def _linger(self) -> None:
        skipped = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while skipped < LINGER_BYTES:
                    message = await self._receive()
                    if not message.get("more_body", False):
                        return
                    skipped += len(message.get("body", b""))
        except TimeoutError:
            return

    @property
    def ended_well(self) -> bool:
        """Was the answer whole, and no failure of the engine? A stream that began well tells of one in an event of its own."""
        if self.status is None or self.status >= 500 or not self.complete or self.gone:
            return False  # vLLM answers 200 to a client that has left
        return not (self.streamed and any(ERROR in piece for piece in (self._tail_first, self._tail_before, self._tail)))

    # After -------------------------------------------------------------------------------------------------------------------

    def entry(self, route: str, now: float) -> Entry:
        client = self.scope.get("client")
        # The pieces are joined only where one of them may be cut short: the last alone is most often enough.
        tail = self._tail if len(self._tail) >= TAIL_BYTES else self._tail_first[-TAIL_BYTES:] + self._tail_before[-TAIL_BYTES:] + self._tail
        return Entry(
            time=self.arrived,
            id=self.id.decode("ascii"),
            who=self.who,
            client=client[0] if client else None,
            method=self.scope["method"],
            route=route,
            status=self.status,
            ms=(now - self.started) * 1000,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            streamed=self.streamed,
            finished=self.complete and not self.gone,
            tail=tail[-TAIL_BYTES:],
        )


def content_length(headers: dict[bytes, bytes]) -> int:
    """The announced size of the body in bytes; 0 when none is announced. Servers refuse what is not a number before us."""
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() else 0
