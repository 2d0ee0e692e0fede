"""The routes we promise. Everything else that the engine's server offers is closed.

vLLM serves some forty routes beside these (/invocations, /tokenize, /inference/v1/generate, ...), many without any key check.
"""

from __future__ import annotations

from dataclasses import dataclass

from qwen_fp8_ops.gate.asgi import Scope

CHAT = "/v1/chat/completions"
HEALTH = "/health"
METRICS = "/metrics"
SERVICE = "/service"
PROBE_HEADER = "X-Service-Probe"
"""The supervisor marks its own probes with it, and they are nobody's load. It counts only with the supervisor's key."""


@dataclass(frozen=True)
class Route:
    path: str
    methods: tuple[str, ...]
    audited: bool = True

    @property
    def allow(self) -> bytes:
        """Value of the Allow header. OPTIONS goes to the app everywhere: browsers ask it before they ask with a key."""
        return ", ".join((*self.methods, "OPTIONS")).encode()


ROUTES = {
    route.path: route
    for route in (
        Route("/v1/models", ("GET", "HEAD")),
        Route(CHAT, ("POST",)),
        Route("/v1/completions", ("POST",)),
        Route(HEALTH, ("GET", "HEAD"), audited=False),
        Route(METRICS, ("GET",), audited=False),
        Route(SERVICE, ("GET",)),
    )
}


def route_path(scope: Scope) -> str:
    """The path that the app's router will match: without the root path it is mounted under, just as Starlette takes it off.

    It must be the very string the router sees, or one of us opens what the other thinks closed.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


def is_local(scope: Scope) -> bool:
    """Did this host itself ask, and not somebody through a reverse proxy on this host?

    Servers take the client's address from forwarding headers when the peer is trusted, so their presence alone says no.
    """
    client = scope.get("client")
    host = client[0] if client else ""
    if not (host.startswith(("127.", "::ffff:127.")) or host == "::1"):
        return False
    return not any(name in (b"forwarded", b"x-forwarded-for", b"x-real-ip") for name, _ in scope["headers"])
