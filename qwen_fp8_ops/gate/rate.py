"""How many requests a minute one caller may send."""

from __future__ import annotations

MAX_CALLERS = 10_000
"""Memory stays bounded when addresses are made up: the caller that was quiet the longest is forgotten first."""


class RateLimiter:
    """A token bucket per caller: as many requests at once as the limit allows in a minute, refilled evenly.

    A bucket is kept as one number, the monotonic time at which it will be full again; each request moves it on by its share of
    the minute. Each API server process counts for itself.
    """

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, caller: str, per_minute: int, now: float) -> float:
        """0.0 when the request may pass, else the seconds until one would. A refused request costs nothing.

        Args:
            per_minute: at least 1.
            now: monotonic seconds.
        """
        share = 60.0 / per_minute
        full_at = max(self._full_at.pop(caller, now), now)
        # The bucket is empty when it needs the whole minute to be full; the hair's breadth takes up rounding.
        wait = full_at + share - (now + 60.0)
        allowed = wait <= 1e-6
        self._full_at[caller] = full_at + share if allowed else full_at
        if len(self._full_at) > MAX_CALLERS:
            # Dictionaries keep their order, and take() puts its caller last.
            del self._full_at[next(iter(self._full_at))]
        return 0.0 if allowed else wait

    def __len__(self) -> int:
        return len(self._full_at)
