"""A run's history for a person: one line of events.jsonl becomes ``12:00:01 engine0 started (pid 4711, attempt 1)``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

Facts = Mapping[str, Any]


class EventText:
    """Turns lines into text in local time, and says the date when a line is of another day than the one before."""

    def __init__(self, today: date) -> None:
        self._day = today

    def render(self, line: str) -> list[str]:
        """The lines to print for one line of the file; one that is no event (torn, foreign) stays as it is."""
        try:
            event = json.loads(line)
            moment = datetime.fromisoformat(event["time"]).astimezone()
            first, *more = describe(event).splitlines()
        except (ValueError, TypeError, KeyError, AttributeError):
            return [line]
        head = [] if moment.date() == self._day else [f"--- {moment.date().isoformat()} ---"]
        self._day = moment.date()
        return [*head, f"{moment:%H:%M:%S} {first}", *(f"         {rest}" for rest in more)]


def describe(event: Facts) -> str:
    """What happened, in words; the lines after the first give evidence.

    Raises:
        KeyError: it is no event.
    """
    kind = str(event["event"])
    words = WORDS.get(kind)
    if words is not None:
        try:
            return words(event)
        except (KeyError, TypeError):
            pass  # of another version: its facts are told as they are
    facts = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("time", "event"))
    return f"{kind} {facts}".strip()


def _state(event: Facts) -> str:
    return f"{event['from']} -> {event['to']}" + (f": {event['why']}" if event.get("why") else "")


def _died(event: Facts) -> str:
    return "\n".join([f"{event['name']} died: {event['how']}", *map(str, event.get("cause") or ())])


def _hangs(event: Facts) -> str:
    return f"{event['name']} hangs: no good answer for {event['seconds']} s" + (f" ({event['problem']})" if event.get("problem") else "")


def _settings(event: Facts) -> str:
    return " ".join(f"{key}={text['to']}" for key, text in event["settings"].items())


def _restart(event: Facts) -> str:
    return "restarted" + (f" with {_settings(event)}" if event["settings"] else "") + (", the weights stay" if event["keep_weights"] else "")


def _stopped(event: Facts) -> str:
    left = "; ".join(map(str, event.get("leftovers") or ()))
    return f"stopped in {event['seconds']} s, " + (f"but not everything is gone: {left}" if left else "everything is gone")


WORDS: dict[str, Callable[[Facts], str]] = {
    "state": _state,
    "program-started": lambda event: f"{event['name']} started (pid {event['pid']}, attempt {event['attempt']})",
    "program-ready": lambda event: f"{event['name']} ready after {event['seconds']} s",
    "program-failing": lambda event: f"{event['name']} fails its probes: {event['problem']}",
    "program-died": _died,
    "program-hangs": _hangs,
    "request-refused": lambda event: f"a request that ran at two crashes is refused until {event['until']} ({event['id']} in run/poison.json)",
    "program-given-up": lambda event: f"{event['name']} is not started again: {event['why']}",
    "not-ended": lambda event: f"{event['name']} left processes that do not end: pid {', '.join(map(str, event['pids']))}",
    "ready": lambda event: f"the service is ready after {event['seconds']} s",
    "stopped": _stopped,
    "wall-time-near": lambda event: f"the wall time is near ({event['how']}; it ends at {event['ends_at'] or '?'}), then: {event['then']}",
    "end-moved": lambda event: f"the allocation now ends at {event['ends_at'] or 'no set time'}",
    "restart": _restart,
    "settings-taken-back": lambda event: f"it did not start with {_settings(event)}, and goes back: {event['why']}",
    "chained": lambda event: f"job {event['job_id']} follows when this one has ended",
}
