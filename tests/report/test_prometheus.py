from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from qwen_fp8_ops.report.prometheus import render_prometheus
from qwen_fp8_ops.service.states import State
from tests.report.test_text import GIB, GPU, NOTHING, READY

Samples = dict[str, list[tuple[dict[str, str], float]]]


def parsed(status: dict[str, Any]) -> Samples:
    """As Prometheus reads it: every family has its help and its type, every sample belongs to one."""
    text = render_prometheus(status)
    assert text.count("# HELP ") == text.count("# TYPE ") == len({line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")})
    families = list(text_string_to_metric_families(text + "\n"))
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families)
    return {sample.name: [(one.labels, one.value) for one in family.samples] for family in families for sample in family.samples}


def test_a_ready_service() -> None:
    found = parsed(READY)
    assert found["qwen_fp8_up"] == [({}, 1.0)]
    assert {labels["state"]: value for labels, value in found["qwen_fp8_state"]} == {state.value: float(state is State.READY) for state in State}
    assert found["qwen_fp8_restarts_total"] == [({}, 1.0)]
    assert found["qwen_fp8_kv_cache_usage_ratio"] == [({}, 0.253)]
    assert found["qwen_fp8_allocation_seconds_left"] == [({}, 7500.0)]
    assert found["qwen_fp8_driver_info"] == [({"source": "nvml", "version": "580.95.05", "cuda_version": "13.0"}, 1.0)]
    assert found["qwen_fp8_gpu_memory_used_bytes"] == [({"gpu": "0", "uuid": "GPU-0"}, 70.0 * GIB), ({"gpu": "1", "uuid": "GPU-0"}, 5.0 * GIB)]
    assert found["qwen_fp8_gpu_utilization_ratio"] == [({"gpu": "0", "uuid": "GPU-0"}, 0.97)]  # the other does not tell: a gap
    assert [value for _, value in found["qwen_fp8_gpu_problems"]] == [0.0, 1.0]
    assert ({"role": "worker", "rank": "0"}, 5.0 * GIB) in found["qwen_fp8_process_resident_bytes"]


def test_who_holds_what_sums_to_what_is_used() -> None:
    held = parsed(READY)["qwen_fp8_gpu_memory_held_bytes"]
    assert {labels["by"]: value / GIB for labels, value in held if labels["gpu"] == "0"} == {
        "weights": 29.0, "kv_cache": 36.0, "graphs": 1.0, "rest": 2.0, "foreign": 0.0, "unattributed": 2.0,
    }  # fmt: skip
    assert {labels["by"]: value / GIB for labels, value in held if labels["gpu"] == "1"} == {"own": 0.0, "foreign": 5.0, "unattributed": 0.0}


def test_nothing_running_is_a_zero_and_no_made_up_values() -> None:
    found = parsed(NOTHING)
    assert (found["qwen_fp8_up"], found["qwen_fp8_restarts_total"]) == ([({}, 0.0)], [({}, 0.0)])
    assert set(found) == {"qwen_fp8_up", "qwen_fp8_state", "qwen_fp8_restarts_total"}


def test_a_lost_gpu_has_only_what_is_known_of_it() -> None:
    lost = {
        **GPU,
        **dict.fromkeys(
            (
                "uuid",
                "memory_total_bytes",
                "memory_used_bytes",
                "temperature_celsius",
                "ecc_uncorrected",
                "nvlinks_up",
                "nvlinks_down",
                "unattributed_bytes",
                "parts",
            )
        ),
    }
    found = parsed({**NOTHING, "gpus": [{**lost, "lost": True, "problems": ["GPU is lost"]}]})
    assert found["qwen_fp8_gpu_lost"] == [({"gpu": "0", "uuid": ""}, 1.0)]
    assert not {"qwen_fp8_gpu_memory_used_bytes", "qwen_fp8_gpu_memory_held_bytes", "qwen_fp8_gpu_temperature_celsius", "qwen_fp8_gpu_nvlinks"} & set(found)


def test_labels_are_escaped() -> None:
    name = 'a "quoted\\ name\nin two lines'
    assert parsed({**NOTHING, "driver": {"source": name, "version": None, "cuda_version": "13.0"}})["qwen_fp8_driver_info"] == [
        ({"source": name, "version": "", "cuda_version": "13.0"}, 1.0)
    ]


def test_problems_are_counted_by_code() -> None:
    ecc = {"code": "gpu-ecc", "message": "m", "fix": "f"}
    found = parsed({**NOTHING, "problems": [ecc, ecc], "error": {"code": "engine-failed", "message": "m", "fix": "f"}})
    assert found["qwen_fp8_problems"] == [({"code": "engine-failed"}, 1.0), ({"code": "gpu-ecc"}, 2.0)]


def test_the_status_of_a_load() -> None:
    load = {"phase": "weights", "done": 3, "total": 24, "fraction": 0.125, "elapsed_seconds": 40, "eta_seconds": None}
    assert parsed({**NOTHING, "state": "starting", "load": load})["qwen_fp8_load_fraction"] == [({}, 0.125)]
