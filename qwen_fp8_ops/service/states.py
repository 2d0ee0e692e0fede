"""The states of the service, and the only moves between them.

    stopped ─> preflight ─> starting ─> ready <─> degraded
                   │           │  ^───────┴──────────┘        an engine is started again
                   │           │          │
                   │           │       draining ─> starting   (restart asked for)
                   v           v          v
                failed      stopping <────┘
                               └─> stopped, failed or gave-up

``ready``: every program serves. ``degraded``: an engine serves, but something else does not. ``starting``: no engine serves yet.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    STOPPED = "stopped"
    PREFLIGHT = "preflight"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    GAVE_UP = "gave-up"


SERVING = frozenset({State.READY, State.DEGRADED})
ENDED = frozenset({State.STOPPED, State.FAILED, State.GAVE_UP})

MOVES: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.PREFLIGHT}),
    State.FAILED: frozenset({State.PREFLIGHT}),
    State.GAVE_UP: frozenset({State.PREFLIGHT}),
    State.PREFLIGHT: frozenset({State.STARTING, State.FAILED, State.STOPPED}),
    State.STARTING: frozenset({State.READY, State.DEGRADED, State.STOPPING}),
    State.READY: frozenset({State.DEGRADED, State.STARTING, State.DRAINING, State.STOPPING}),
    State.DEGRADED: frozenset({State.READY, State.STARTING, State.DRAINING, State.STOPPING}),
    State.DRAINING: frozenset({State.STARTING, State.STOPPING}),
    State.STOPPING: ENDED,
}


def check_move(old: State, new: State) -> None:
    """
    Raises:
        ValueError: no such move; a defect of the caller.
    """
    if new not in MOVES[old]:
        raise ValueError(f"the service cannot go from {old} to {new}")
