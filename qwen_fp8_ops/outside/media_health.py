"""Is a media server of ours on that port, and does it serve the folder we mean?"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.outside import http, net

SERVICE = "qwen-fp8-media"
HEALTH_PATH = "/_health"
PICTURE_PATH = "/_picture.png"
"""A small picture of the server's own, for probes; it is given out only while the folder can be read."""


@dataclass(frozen=True)
class MediaHealth:
    """What a media server says of itself."""

    root_id: str
    pid: int

    def as_json(self) -> dict[str, Any]:
        return {"service": SERVICE, "root_id": self.root_id, "pid": self.pid}


def root_id(root: Path) -> str:
    """A name for the folder, the same for every path that leads to it; tells a stranger nothing about the path."""
    return hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()


def health(host: str, port: int, timeout: float) -> MediaHealth | None:
    """The media server that answers there; None when nobody does within ``timeout`` seconds, or when it is not one of ours."""
    answer = http.get(net.url(host, port, HEALTH_PATH), timeout=timeout)
    record = answer.json() if answer.ok else None
    if not isinstance(record, dict) or record.get("service") != SERVICE:
        return None
    root, pid = record.get("root_id"), record.get("pid")
    return MediaHealth(root, pid) if isinstance(root, str) and isinstance(pid, int) else None
