"""The requests that still run while nothing new is admitted."""

from __future__ import annotations

from collections.abc import Iterable

from qwen_fp8_ops.outside import http
from qwen_fp8_ops.service.child import Child

ASK_SECONDS = 2.0


def requests_running(children: Iterable[Child], key: str) -> int:
    running = 0
    for child in children:
        if child.program.is_engine and child.running:
            answer = http.get(f"{child.program.base_url}/service", timeout=ASK_SECONDS, key=key)
            if answer.problem.endswith("Connection refused"):
                # It runs and has closed its door: scancel sends SIGTERM to every process of a job, and the engine drains by itself.
                running += 1
                continue
            told = answer.json()
            gate = told.get("gate", {}) if isinstance(told, dict) else {}
            # A gate that has not read the news yet may still admit a request.
            running += int(gate.get("in_flight", 0)) if gate.get("draining", True) else 1
    return running
