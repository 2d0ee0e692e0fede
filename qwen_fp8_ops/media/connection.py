"""One client: requests are answered in the order they came, small answers at once, large files by sendfile, part by part.

The socket is used directly and not through an asyncio transport: asyncio's own sendfile registers the socket anew for every
part, and has no limit for a client that stopped reading.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable
from typing import Protocol

from qwen_fp8_ops.media.answer import Site, answer
from qwen_fp8_ops.media.message import Answer, FileSlice, Later, Request, head_bytes, plain
from qwen_fp8_ops.media.reader import RequestReader

HEAD_SECONDS = 20.0  # for a request to arrive whole
IDLE_SECONDS = 75.0  # between requests; longer than clients keep a connection, so that they close it and not we
STALL_SECONDS = 60.0  # for a client to take some more bytes
LINGER_SECONDS = 2.0  # for a refused client to read why; closing at once would reset the connection under the answer

RECEIVE_BYTES = 64 * 1024
TURN_BYTES = 4 * 1024 * 1024  # sent to one client before the others get their turn

NOT_NOW = (BlockingIOError, InterruptedError)


class Host(Protocol):
    """What a connection needs of its server."""

    site: Site
    loop: asyncio.AbstractEventLoop
    stopping: bool

    def forget(self, connection: Connection) -> None: ...
    def complain(self, message: str) -> None: ...
    def note(self, peer: str, request: Request, status: int) -> None: ...


class Connection:
    """``deadline`` is the loop's time at which the server may give this client up."""

    def __init__(self, host: Host, sock: socket.socket, peer: str) -> None:
        self._host = host
        self._socket = sock
        self._peer = peer
        self._reader = RequestReader()
        self._out = b""  # to be sent, and after it _file
        self._file: FileSlice | None = None
        self._making = False  # an answer is being made in a thread
        self._lingering = False
        self._open = True
        self._hears = False  # registered with the loop for reading
        self._writes = False  # registered for writing
        self._extend(HEAD_SECONDS)
        self._hear(True)

    @property
    def is_busy(self) -> bool:
        """Is an answer under way?"""
        return self._making or bool(self._out) or self._file is not None

    def _extend(self, seconds: float) -> None:
        self.deadline = self._host.loop.time() + seconds

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._hear(False)
        self._want_to_write(False)
        self._drop_file()
        self._socket.close()
        self._host.forget(self)

    # Requests in.

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except NOT_NOW:
            return
        except OSError:  # reset by the client
            self.close()
            return
        if not data:  # nothing is under way while we read, so there is nobody left to answer
            self.close()
        elif not self._lingering:
            before = self._reader.under_way
            self._reader.feed(data)
            if self._reader.under_way and not before:
                self._extend(HEAD_SECONDS)
            self._advance()

    def _hear(self, wanted: bool) -> None:
        if wanted != self._hears:
            self._hears = wanted
            if wanted:
                self._host.loop.add_reader(self._socket.fileno(), self._readable)
            else:
                self._host.loop.remove_reader(self._socket.fileno())

    # Answers out.

    def _advance(self) -> None:
        """Answer the requests at hand as far as the client takes the answers; read on when none is left."""
        while self._open and not self.is_busy and self._reader.requests:
            request = self._reader.requests.popleft()
            self._take(request, functools.partial(answer, self._host.site, request))
        if not self._open or self._lingering:
            return
        if self._reader.finished and not self.is_busy:
            self.close()
        else:
            self._hear(not self._reader.finished and not self.is_busy)

    def _take(self, request: Request, make: Callable[[], Answer | Later]) -> None:
        try:
            made = make()
        except OSError as error:
            made = self._trouble(request, error)
        if isinstance(made, Answer):
            self._send(request, made)
        else:
            self._making = True
            self._host.loop.run_in_executor(None, made).add_done_callback(functools.partial(self._made, request))

    def _made(self, request: Request, future: asyncio.Future[Answer]) -> None:
        self._making = False
        if future.cancelled() or not self._open:
            return
        self._take(request, future.result)
        self._advance()

    def _trouble(self, request: Request, error: OSError) -> Answer:
        self._host.complain(f"{request.method} {request.target[:200].decode('latin-1')}: {error.strerror}")
        return plain(503, ("Retry-After", "1"))

    def _send(self, request: Request, made: Answer) -> None:
        self._host.note(self._peer, request, made.status)
        is_last = not request.keep_alive or self._host.stopping
        if is_last:
            self._reader.requests.clear()
            self._reader.finished = True
        self._lingering = bool(request.refused)
        head = head_bytes(made, keep_alive=not is_last)
        self._out = head if request.method == "HEAD" else head + made.body
        self._file = made.file
        self._flush()

    def _writable(self) -> None:
        self._flush()
        self._advance()

    def _flush(self) -> None:
        """Send what the socket takes now; the loop calls again for the rest."""
        try:
            self._write_some()
        except NOT_NOW:
            pass
        except OSError:  # the client is gone, or the file became shorter: all we can do is break off
            self.close()
            return
        self._want_to_write(self.is_busy)
        if self.is_busy:
            self._extend(STALL_SECONDS)
        elif self._lingering:
            self._linger()
        else:
            self._extend(HEAD_SECONDS if self._reader.under_way else IDLE_SECONDS)

    def _write_some(self) -> None:
        """
        Raises:
            OSError: BlockingIOError when the socket takes no more for now; others end the connection.
        """
        while self._out:
            self._out = self._out[self._socket.send(self._out, socket.MSG_MORE if self._file else 0) :]
        left = TURN_BYTES
        while self._file and left > 0:
            file = self._file
            sent = os.sendfile(self._socket.fileno(), file.descriptor, file.start, min(file.count_bytes, left))
            if sent == 0:
                raise ConnectionAbortedError("the file became shorter")
            left -= sent
            self._file = FileSlice(file.descriptor, file.start + sent, file.count_bytes - sent)
            if not self._file.count_bytes:
                self._drop_file()

    def _drop_file(self) -> None:
        if self._file:
            os.close(self._file.descriptor)
            self._file = None

    def _linger(self) -> None:
        """Half close, and read away what the client still sends, so that it can read its answer."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._extend(LINGER_SECONDS)
        self._hear(True)

    def _want_to_write(self, wanted: bool) -> None:
        if wanted != self._writes:
            self._writes = wanted
            if wanted:
                self._host.loop.add_writer(self._socket.fileno(), self._writable)
            else:
                self._host.loop.remove_writer(self._socket.fileno())
