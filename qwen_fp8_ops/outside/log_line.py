"""One line of a log as one JSON object (LOG_FORMAT=json), with the same names in whatever writes it: the supervisor and the gate's audit.

| field | in | what it is |
|---|---|---|
| ``ts`` | every line | wall time, ISO 8601 in UTC to the millisecond; of a request, when it arrived |
| ``level`` | every line | ``debug``, ``info``, ``warning`` or ``error`` |
| ``event`` | every line | what happened: ``message``, ``progress`` or ``ready`` (supervisor), ``request`` (audit) |
| ``message`` | supervisor | the text that LOG_FORMAT=text would print |
| ``request_id`` | audit | the answer's ``X-Request-Id``. The engine's own lines hold it after ``chatcmpl-`` or ``cmpl-``, the gate's after ``request`` |
| ``who`` | audit | the name of the key; null without one |
| ``client`` | audit | the address that asked |
| ``method``, ``route``, ``status`` | audit | of HTTP; ``status`` is null when the client left before any answer |
| ``ms`` | audit | milliseconds from arrival to the end of the answer |
| ``bytes_in``, ``bytes_out`` | audit | of the two bodies |
| ``streamed``, ``finished`` | audit | was it a stream of events; did the answer reach its end |
| ``prompt_tokens``, ``completion_tokens`` | audit | as the engine counted them; null where it did not tell |

events.jsonl is a file of the run and no log: its lines have ``time`` and ``event`` in either format.
"""

from __future__ import annotations

import json
from typing import Any


def log_line(ts: str, level: str, event: str, **facts: Any) -> str:
    """Pure ASCII, so that no locale spoils it; without a line break at its end, and with none inside."""
    return json.dumps({"ts": ts, "level": level, "event": event, **facts})
