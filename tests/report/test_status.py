"""`status --json`: one object of a fixed shape, whatever is there."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qwen_fp8_ops.report.status
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import GaveUpError, OpsError
from qwen_fp8_ops.report.status import collect
from qwen_fp8_ops.report.text import render_status
from qwen_fp8_ops.service.outcome import Failure, Outcome
from qwen_fp8_ops.service.states import SERVING, State
from tests.report.recorded_run import WAYS, Run

SCHEMA = json.loads((Path(qwen_fp8_ops.report.status.__file__).parent / "status.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def checked(paths: RunPaths) -> dict[str, Any]:
    """The status, once it has the promised shape, survives JSON and can be shown."""
    status = collect(paths)
    VALIDATOR.validate(status)
    assert json.loads(json.dumps(status, allow_nan=False)) == status
    assert render_status(status)
    return status


def codes(status: dict[str, Any]) -> set[str]:
    return {problem["code"] for problem in status["problems"]} - {"no-gpus"}


def test_the_schema_itself_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_nothing_there_is_stopped_and_no_problem(tmp_path: Path) -> None:
    status = checked(RunPaths(tmp_path))
    assert (status["ok"], status["state"], status["error"], codes(status)) == (False, "stopped", None, set())
    assert (status["processes"], status["engines"], status["load"], status["media"]) == ([], [], None, None)
    assert os.listdir(tmp_path) == []


def test_a_machine_without_a_gpu_has_none_and_says_why(tmp_path: Path) -> None:
    status = checked(RunPaths(tmp_path))
    if status["gpus"]:
        pytest.skip("this machine has GPUs")
    assert [problem["code"] for problem in status["problems"]] == ["no-gpus"]


@pytest.mark.parametrize("state", WAYS)
def test_every_state_has_the_promised_shape(run: Run, state: State) -> None:
    failure = {State.FAILED: Failure(State.FAILED, OpsError("no", fix="do", code="x")), State.GAVE_UP: Failure(State.GAVE_UP, GaveUpError("no"))}.get(state)
    run.record(state, Outcome(failure, was_ready=False, leftovers=()) if failure else None)
    status = checked(run.paths)
    assert (status["state"], status["ok"]) == (state.value, state in SERVING)


def test_starting_tells_how_far_it_is(run: Run) -> None:
    run.child("engine").expected_seconds = 100.0
    run.record(State.STARTING, metrics=None)
    status = checked(run.paths)
    load = status["load"]
    assert (load["phase"], load["done"], load["total"], load["fraction"]) == ("weights", 3, 24, 0.125)
    assert 70 <= load["eta_seconds"] <= 80
    assert status["engines"][0]["load"] == load
    assert (status["engine"], status["memory"]) == (None, None)


def test_ready_tells_all_of_it(run: Run) -> None:
    run.record(State.READY)
    status = checked(run.paths)
    assert (status["profile"], status["model"], status["url"]) == ("demo", "qwen3-vl-fp8", "http://127.0.0.1:8010/v1")
    assert status["uptime_seconds"] < 60
    assert status["media"] == {"state": "ready", "url": "http://127.0.0.1:8080", "root": str(run.paths.home / "media")}
    assert {(entry["role"], entry["pid"], entry["rank"]) for entry in status["processes"]} == {("engine", run.engine.pid, None), ("worker", run.worker, 1)}
    assert all(entry["rss_bytes"] > 0 for entry in status["processes"])
    assert status["memory"] == {
        "weights_bytes_per_rank": round(28.98 * 2**30),
        "weights_bytes_by_rank": [round(28.98 * 2**30)],
        "kv_cache_bytes_per_rank": round(36.29 * 2**30),
        "kv_cache_tokens": 809_504,
        "graphs_bytes_per_rank": None,
        "max_concurrency": 24.7,
        "imbalance_percent": None,
    }
    assert (status["slurm"]["job_id"], status["slurm"]["gpus"]) == ("4711", 8)
    assert status["slurm"]["seconds_left"] is not None


def test_degraded_names_the_program_and_its_log(run: Run) -> None:
    run.record(State.DEGRADED)
    status = checked(run.paths)
    assert status["problems"][0] == {"code": "media-failing", "message": "media: no good answer", "fix": f"See {run.paths.media_log}"}
    assert status["media"]["state"] == "failing"


def test_failed_keeps_the_reason_and_no_remains_of_the_run(run: Run) -> None:
    run.record(State.FAILED, Outcome(Failure(State.FAILED, OpsError("no memory", fix="less", code="engine-failed")), was_ready=False, leftovers=()))
    status = checked(run.paths)
    assert status["error"] == {"code": "engine-failed", "message": "no memory", "fix": "less"}
    assert (status["load"], status["engines"], status["uptime_seconds"], status["media"]["state"]) == (None, [], None, "stopped")
    assert codes(status) == set()


def rewrite(run: Run, change: dict[str, Any]) -> None:
    state = json.loads(run.paths.state.read_text())
    run.paths.state.write_text(json.dumps({**state, **change}))


def test_a_supervisor_that_is_gone_is_told_with_what_it_left(run: Run) -> None:
    run.record(State.READY)
    rewrite(run, {"supervisor": replace(run.me, start_ticks=1).as_json()})
    status = checked(run.paths)
    assert (status["state"], status["ok"], status["error"]["code"]) == ("failed", False, "supervisor-gone")
    assert status["error"]["message"] == f"The supervisor (pid {run.me.pid}) is gone; 2 processes of the service still run, unwatched"


def test_a_run_on_another_host_is_shown_and_not_judged(run: Run) -> None:
    run.record(State.READY)
    rewrite(run, {"supervisor": replace(run.me, host="node99", pid=1, start_ticks=1).as_json()})
    status = checked(run.paths)
    assert (status["state"], status["ok"], status["error"], status["processes"], status["gpus"]) == ("ready", True, None, [], [])
    assert status["engine"]["running"] == 2
    (problem,) = [problem for problem in status["problems"] if problem["code"] == "other-host"]
    assert (problem["message"], problem["fix"]) == ("It runs on node99; this is what it last recorded", "ssh node99")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'"ready"', b"[]", b"3", b'{"state": "flying"}', b'{"schema": 1}', b'{"schema": 1, "state": ["ready"]}']
)
def test_a_damaged_state_is_a_problem_and_no_crash(tmp_path: Path, content: bytes) -> None:
    paths = RunPaths(tmp_path)
    paths.run.mkdir()
    paths.state.write_bytes(content)
    status = checked(paths)
    assert (status["state"], codes(status)) == ("stopped", {"damaged-file"})
    assert str(paths.state) in status["problems"][0]["fix"]


def test_a_folder_in_place_of_the_state_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.state.mkdir(parents=True)
    assert codes(checked(paths)) == {"unreadable-file"}


def test_a_state_of_a_newer_version_is_not_guessed_at(run: Run) -> None:
    run.record(State.READY)
    rewrite(run, {"schema": 2})
    status = checked(run.paths)
    assert (status["state"], codes(status)) == ("stopped", {"newer-state"})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ([path] if path else []) + [place for key, inner in items for place in places(inner, (*path, key))]


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_state_damaged_anywhere_is_never_a_crash(run: Run, data: st.DataObject) -> None:
    if run.recorder.state is State.STOPPED:
        run.record(State.READY)
        run.paths.home.joinpath("good.json").write_text(run.paths.state.read_text())
    value = copy.deepcopy(json.loads(run.paths.home.joinpath("good.json").read_text()))
    *way, last = data.draw(st.sampled_from(places(value)))
    inside = value
    for key in way:
        inside = inside[key]
    if data.draw(st.booleans()):
        del inside[last]
    else:
        inside[last] = data.draw(st.sampled_from([None, -1, "x", [], {}, ["x"], {"a": 1}, True]))
    run.paths.state.write_text(json.dumps(value))
    status = collect(run.paths)
    assert set(status) == set(SCHEMA["required"])
    assert status["state"] in SCHEMA["properties"]["state"]["enum"]


@pytest.mark.parametrize(
    ("title", "rank"),
    [("VLLM::Worker_TP3", "3"), ("VLLM::Worker_TP3_EP3", "3"), ("VLLM::Worker_DP1_TP2_EP6", "2"), ("VLLM::Worker_PP0_TP10", "10"), ("VLLM::Worker", None)],
)
def test_a_worker_is_known_by_its_title(title: str, rank: str | None) -> None:
    found = qwen_fp8_ops.report.status.RANK.search(title)
    assert found
    assert found[1] == rank
    assert qwen_fp8_ops.report.status.RANK.search("VLLM::EngineCore") is None
