"""What ran when an engine crashed, and which request was there both of the last two times: the one writer of run/poison.json."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.in_flight import files_of, recorded
from qwen_fp8_ops.gate.poison import SCHEMA, Refused, refused_in
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.files import read_json, write_json

MEMORY_SECONDS = 86_400.0
"""After a day a crash is no longer held against a request, and a refused one is let in again."""
MOST_REQUESTS = 1000
ABOUT = "Requests that ran at the latest crashes of an engine. Those under `refused` are answered 422; take a record out to lift it."


class CrashBook:
    """The crashes of all engines of the service together: a client may send a request again to another one."""

    def __init__(self, path: Path, in_flight: Path) -> None:
        self._path = path
        self._in_flight = in_flight

    def begin(self) -> None:
        """Before the first engine starts: forget what earlier ones left in flight. Their process numbers may come again, and each left a file."""
        shutil.rmtree(self._in_flight, ignore_errors=True)

    def note(self, program: str, session: int, how: str, *, served: bool, seconds: float, attempt: Callable[[Callable[[], None]], bool]) -> list[Refused]:
        """Write down the requests that the engine of that session had; those that ran at the crash before as well are returned, and
        refused from now on.

        Args:
            served: was it ready? One that was not counts as a crash only when it had requests: clients who ask again and again are
                let in as soon as it listens, which is before we find it ready.
            seconds: a request that failed so long ago failed by this crash.
            attempt: writes, and tells it when that fails (``Recorder.attempt``).
        """
        running = {request.sha256: request for request in recorded(self._in_flight, session, since=time.time() - seconds)}
        for file in list(files_of(self._in_flight, session)):
            with contextlib.suppress(OSError):  # a folder that is read-only now, or lies on a server that is gone: the service goes on
                file.unlink()
        if not running and not served:
            return []
        moment = time.time()
        now = clock.iso(moment)
        crashes, refused = self._read()
        before: dict[str, Any] = crashes[-1] if crashes else {"time": now, "requests": []}
        known = {record.sha256 for record in refused}
        ran_before = {row["sha256"] for row in before["requests"]}
        until = clock.iso(moment + MEMORY_SECONDS)
        new = [
            Refused(secrets.token_hex(4), request.sha256, request.body_bytes, request.media, before["time"], now, until)
            for request in running.values()
            if request.sha256 in ran_before and request.sha256 not in known
        ]
        requests = [
            {"sha256": one.sha256, "body_bytes": one.body_bytes, "media": one.media, "request_id": one.id, "ran_seconds": round(moment - one.since, 1)}
            for one in list(running.values())[:MOST_REQUESTS]
        ]
        crash = {"time": now, "program": program, "how": how, "requests": requests}
        value = {"schema": SCHEMA, "about": ABOUT, "crashes": [*crashes[-1:], crash], "refused": [record.as_json() for record in [*refused, *new]]}
        attempt(lambda: write_json(self._path, value, mode=0o600))
        return new

    def _read(self) -> tuple[list[dict[str, Any]], list[Refused]]:
        """What is on record and not yet too old; nothing where the file is damaged: it is written anew."""
        try:
            value = read_json(self._path)
        except OpsError:
            return [], []
        rows = value.get("crashes") if isinstance(value, dict) else None
        crashes = [row for row in (rows if isinstance(rows, list) else []) if _is_crash(row) and clock.seconds_since(row["time"]) < MEMORY_SECONDS]
        return crashes, [record for record in refused_in(value) if not record.is_over]


def _is_crash(row: Any) -> bool:
    try:
        clock.seconds_since(row["time"])
        return all(isinstance(request["sha256"], str) for request in row["requests"])
    except (KeyError, TypeError, ValueError):
        return False
