"""How a service on another node is reached, for the person who submitted it."""

from __future__ import annotations

import getpass
import socket
from typing import Any
from urllib.parse import urlsplit

from qwen_fp8_ops.outside.net import is_loopback


def render_endpoint(endpoint: dict[str, Any]) -> str:
    """
    Args:
        endpoint: what run/endpoint.json holds.
    """
    node, port = endpoint["host"], endpoint["port"]
    listens_on = urlsplit(endpoint["url"]).hostname or ""
    lines = [f"host  {node}", f"port  {port}", f"model {endpoint['model']}"]
    if endpoint.get("ends_at"):
        lines.append(f"until {endpoint['ends_at']}")
    if endpoint.get("key_file"):
        lines.append(f"key   one of {endpoint['key_file']}")
    if not is_loopback(listens_on):
        return "\n".join([*lines, f"From any node:      http://{node}:{port}/v1"])
    tunnel = f"ssh -N -L {port}:{listens_on}:{port}"
    return "\n".join(
        [
            *lines,
            "It listens on its own node only; a tunnel leads there:",
            f"  from here:        {tunnel} {node}",
            f"  from your laptop: {tunnel} -J {getpass.getuser()}@{socket.gethostname()} {getpass.getuser()}@{node}",
            f"  then:             curl http://127.0.0.1:{port}/v1/models",
        ]
    )
