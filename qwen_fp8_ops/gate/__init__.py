"""The gate: what stands between the network and the engine, inside the engine's own API server.

vLLM loads it with ``--middleware qwen_fp8_ops.gate.Gate``; environment variable QWEN_FP8_GATE names its configuration, a JSON
file that the supervisor writes. It imports nothing but the standard library. ``Gate`` is loaded when it is first asked for:
the supervisor, which only writes the configuration, does not pay for the server's side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwen_fp8_ops.gate.config import GATE_VARIABLE, GateConfig
from qwen_fp8_ops.gate.keys import read_keys

if TYPE_CHECKING:
    from qwen_fp8_ops.gate.app import Gate

__all__ = ["GATE_VARIABLE", "Gate", "GateConfig", "read_keys"]


def __getattr__(name: str) -> Any:
    if name == "Gate":
        from qwen_fp8_ops.gate.app import Gate

        return Gate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
