"""What a failed request means for its item and for the run. Pure."""

from __future__ import annotations

import random
from enum import Enum

from qwen_fp8_ops.client.failures import ApiError

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
LONGEST_ASKED_SECONDS = 300.0
WRONG_PLACE = frozenset({"unauthorized", "no-such-model", "no-such-route", "redirected"})
NOT_TAKEN = frozenset({"unreachable", "unavailable"})
HEALING = frozenset({"broken-answer", "timed-out", "bad-answer"})
STRAIN = frozenset({"too-many-requests", "timed-out", "broken-answer"})


class Verdict(Enum):
    """
    AWAY    the service took no request at all: wait for it; it is no try
    LATER   the service asks for patience with this one: no try either
    AGAIN   a try that may heal
    NEVER   the request itself is refused: sent again it fails again
    LOST    no request can succeed: the key, the model or the address is wrong
    """

    AWAY = "away"
    LATER = "later"
    AGAIN = "again"
    NEVER = "never"
    LOST = "lost"


def judge(error: ApiError) -> Verdict:
    if error.code in WRONG_PLACE:
        return Verdict.LOST
    if error.code in NOT_TAKEN:
        return Verdict.AWAY
    if error.status == 429:
        return Verdict.LATER
    if error.code in HEALING or error.status == 408 or (error.status or 0) >= 500:
        return Verdict.AGAIN
    return Verdict.NEVER


def wait_seconds(attempt: int, asked: float | None) -> float:
    """How long to wait after the ``attempt``-th failure: twice as long each time, scattered so that many do not come back at once;
    never less than what the server asked for, unless that is longer than an outage lasts.
    """
    scattered = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(attempt - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311 # no secret
    return max(scattered, min(asked or 0.0, LONGEST_ASKED_SECONDS) * random.uniform(1.0, 1.1))  # noqa: S311
