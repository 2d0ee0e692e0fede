"""The status in Prometheus' text format, version 0.0.4: for node_exporter's textfile collector, or anything that scrapes a command.

What vLLM measures itself is at the engine's /metrics; here is what it does not know: the service, its GPUs and whose memory is whose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen_fp8_ops.service.states import State

PREFIX = "qwen_fp8_"
Labels = Mapping[str, str]


@dataclass
class Family:
    """Samples of one name. A value that is not known is left out: a gap in a curve, and not a zero."""

    name: str
    help: str
    kind: str = "gauge"
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        if value is not None:
            self.samples.append((labels, float(value)))

    def lines(self) -> Iterator[str]:
        if self.samples:
            yield f"# HELP {PREFIX}{self.name} {self.help}"
            yield f"# TYPE {PREFIX}{self.name} {self.kind}"
        for labels, value in self.samples:
            pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"{PREFIX}{self.name}{'{' + pairs + '}' if pairs else ''} {value:.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_prometheus(status: dict[str, Any]) -> str:
    """
    Args:
        status: as `status --json` gives it.
    """
    families = [*_service(status), *_engine(status), *_gpus(status["gpus"], status["driver"])]
    return "\n".join(line for family in families for line in family.lines())


def _one(name: str, text: str, value: float | None, kind: str = "gauge") -> Family:
    family = Family(name, text, kind)
    family.add(value)
    return family


def _service(status: dict[str, Any]) -> Iterator[Family]:
    yield _one("up", "1 when the service serves.", status["ok"])
    state = Family("state", "1 for the state the service is in, 0 for the others.")
    for known in State:
        state.add(known.value == status["state"], state=known.value)
    yield state
    yield _one("uptime_seconds", "Seconds since the supervisor started.", status["uptime_seconds"])
    yield _one("restarts_total", "Restarts of the engines in this run.", status["restarts"], "counter")
    yield _one("load_fraction", "How much of the weights is loaded, 0 to 1, while the engine starts.", (status["load"] or {}).get("fraction"))
    yield _one("allocation_seconds_left", "Seconds until the SLURM allocation ends.", (status["slurm"] or {}).get("seconds_left"))
    resident = Family("process_resident_bytes", "Host memory of the service's processes; shared pages count in each.")
    sums: dict[tuple[str, str], int] = {}
    for process in status["processes"]:
        key = process["role"], "" if process["rank"] is None else str(process["rank"])
        sums[key] = sums.get(key, 0) + process["rss_bytes"]
    for (role, rank), count in sums.items():
        resident.add(count, role=role, rank=rank)
    yield resident
    problems = Family("problems", "What is wrong now, by code; see qwen-fp8 status.")
    codes = [problem["code"] for problem in [status["error"], *status["problems"]] if problem]
    for code in dict.fromkeys(codes):
        problems.add(codes.count(code), code=code)
    yield problems


def _engine(status: dict[str, Any]) -> Iterator[Family]:
    memory, engine = status["memory"] or {}, status["engine"] or {}
    yield _one("kv_cache_tokens", "Tokens that the KV caches of all engines hold.", memory.get("kv_cache_tokens"))
    yield _one("max_concurrency", "Requests of full length that fit into the KV cache.", memory.get("max_concurrency"))
    yield _one("requests_running", "Requests that are being computed.", engine.get("running"))
    yield _one("requests_waiting", "Requests that wait for room.", engine.get("waiting"))
    yield _one("kv_cache_usage_ratio", "Part of the KV cache in use, 0 to 1, of the fullest engine.", engine.get("kv_cache_usage"))


PLAIN = (
    ("gpu_memory_total_bytes", "Memory of the GPU.", "memory_total_bytes"),
    ("gpu_memory_used_bytes", "Memory in use, without what the driver reserves.", "memory_used_bytes"),
    ("gpu_memory_free_bytes", "Free memory.", "memory_free_bytes"),
    ("gpu_temperature_celsius", "Temperature of the GPU.", "temperature_celsius"),
    ("gpu_power_watts", "Power that the GPU draws.", "power_watts"),
    ("gpu_power_limit_watts", "Power that the GPU may draw.", "power_limit_watts"),
    ("gpu_ecc_uncorrected_errors", "Uncorrected ECC errors since the driver was loaded.", "ecc_uncorrected"),
    ("gpu_lost", "1 when the driver cannot reach the GPU any more.", "lost"),
    ("gpu_ours", "1 when the GPU is ours to use.", "ours"),
)
"""Name, help, key of a GPU in `status --json`."""


def _gpus(gpus: list[dict[str, Any]], driver: dict[str, str | None] | None) -> Iterator[Family]:
    if driver:
        info = Family("driver_info", "The NVIDIA driver; always 1.")
        info.add(1, **{key: value or "" for key, value in driver.items()})
        yield info
    named = [(gpu, {"gpu": str(gpu["index"]), "uuid": gpu["uuid"] or ""}) for gpu in gpus]
    for name, text, key in PLAIN:
        family = Family(name, text)
        for gpu, labels in named:
            family.add(gpu[key], **labels)
        yield family
    held = Family("gpu_memory_held_bytes", "Memory in use, by who holds it; our part by what it is for, once the engine has told.")
    load = Family("gpu_utilization_ratio", "Part of the last moments in which the GPU computed, 0 to 1.")
    problems = Family("gpu_problems", "What is wrong with the GPU, counted.")
    links = Family("gpu_nvlinks", "NVLinks of the GPU, by state.")
    for gpu, labels in named:
        for by, count in _held(gpu):
            held.add(count, **labels, by=by)
        load.add(None if gpu["utilization_percent"] is None else gpu["utilization_percent"] / 100, **labels)
        problems.add(len(gpu["problems"]), **labels)
        links.add(gpu["nvlinks_up"], **labels, state="up")
        links.add(gpu["nvlinks_down"], **labels, state="down")
    yield from (held, load, problems, links)


def _held(gpu: dict[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Nothing is counted twice: the sum over ``by`` is what is in use. Nothing at all without a reading of the memory."""
    if gpu["memory_used_bytes"] is None:
        return
    if gpu["parts"]:
        yield from ((key.removesuffix("_bytes"), count) for key, count in gpu["parts"].items())
    else:
        yield "own", gpu["own_bytes"]
    yield "foreign", gpu["foreign_bytes"]
    yield "unattributed", gpu["unattributed_bytes"]
