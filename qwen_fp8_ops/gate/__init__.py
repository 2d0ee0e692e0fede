"""The gate: what stands between the network and the engine, inside the engine's own API server.

vLLM loads it with ``--middleware qwen_fp8_ops.gate.Gate``; environment variable QWEN_FP8_GATE names its configuration, a JSON
file that the supervisor writes. It imports nothing but the standard library. ``Gate`` is loaded when it is first asked for:
the supervisor, which only writes the configuration, does not pay for the server's side. With it comes the media connector, where
vLLM is told to use that: only it imports more.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qwen_fp8_ops.gate.config import GATE_VARIABLE, GateConfig
from qwen_fp8_ops.gate.keys import read_keys

if TYPE_CHECKING:
    from qwen_fp8_ops.gate.app import Gate

CONNECTOR = "qwen-fp8-ops"
"""Value of VLLM_MEDIA_CONNECTOR that has vLLM fetch media through ours."""

__all__ = ["CONNECTOR", "GATE_VARIABLE", "Gate", "GateConfig", "read_keys"]


def __getattr__(name: str) -> Any:
    if name == "Gate":
        from qwen_fp8_ops.gate.app import Gate

        if os.environ.get("VLLM_MEDIA_CONNECTOR") == CONNECTOR:
            # Here and not in Gate: an error in it must end the server's start.
            import_module("qwen_fp8_ops.gate.connector")
        return Gate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
