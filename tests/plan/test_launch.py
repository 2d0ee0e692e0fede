"""The plan: what will be started, as data that survives being written and read."""

from __future__ import annotations

import copy
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.config.kinds import Arguments, Choice, Decimal, Kind, Names, Switch, Whole
from qwen_fp8_ops.config.load import load, profile_names
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.plan.launch import LaunchPlan, describe, make_plan

HOME = Path("/srv/it's a project")


def plan_of(*profiles: str, home: Path = HOME, **settings: Any) -> LaunchPlan:
    return make_plan(load(profiles=profiles, overrides=[f"{key}={value}" for key, value in settings.items()]), RunPaths(home))


def through_json(plan: LaunchPlan) -> LaunchPlan:
    return LaunchPlan.from_json(json.loads(json.dumps(plan.as_json())))


def texts_of(key: str, kind: Kind) -> st.SearchStrategy[str]:
    if isinstance(kind, Whole):
        return st.integers(kind.low, kind.high).map(str)
    if isinstance(kind, Decimal):
        return st.floats(kind.low, kind.high).map(lambda value: f"{value:.9f}")
    if isinstance(kind, Choice):
        return st.sampled_from(kind.words)
    if isinstance(kind, Switch):
        return st.sampled_from(["on", "off", "Yes", "0"])
    if isinstance(kind, Names):
        return st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True), max_size=3).map(", ".join)
    if isinstance(kind, Arguments):
        return st.sampled_from(["", "--seed 1", "--hf-overrides '{\"a\": \"it is\"}'", '--chat-template "/a b/c=d.jinja"'])
    if key in ("MODEL_PATH", "MEDIA_ROOT", "API_KEYS_FILE", "GPU_NAME"):
        return st.from_regex(r"(~/)?[a-zA-Z0-9 '\"#=&;ü/.-]{1,20}[a-z]", fullmatch=True)
    return st.just(OPTIONS[key].default)


settings_texts = st.fixed_dictionaries({}, optional={key: texts_of(key, row.kind) for key, row in OPTIONS.items()})


@given(settings_texts)
def test_a_plan_survives_being_written_and_read(texts: dict[str, Any]) -> None:
    try:
        plan = plan_of(**texts)
    except ConfigError:
        return  # the values contradict each other
    again = through_json(plan)
    assert again == plan
    assert again.settings == plan.settings


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_survives_too(profile: str) -> None:
    plan = plan_of(profile)
    assert through_json(plan) == plan
    assert plan.profile == profile


def test_how_it_was_asked_for_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "my config.env"
    file.write_text("PORT=9001\n")
    plan = make_plan(load(config_file=file, profiles=["demo", "fast"], overrides=["MEDIA_PORT=9002"]), RunPaths(tmp_path))
    kept = through_json(plan)
    assert (kept.invocation.config_file, kept.invocation.profiles, kept.invocation.overrides) == (str(file), ("demo", "fast"), ("MEDIA_PORT=9002",))
    assert (kept.profile, kept.settings.port, kept.media.port) == ("demo+fast", 9001, 9002)


def test_the_media_server_comes_first_and_both_know_where_they_answer() -> None:
    plan = plan_of(HOST="0.0.0.0", PORT=9001, API_KEYS_FILE="/srv/keys")
    assert [program.name for program in plan.programs] == ["media", "engine0"]
    assert (plan.url, plan.engines[0].health_url) == ("http://127.0.0.1:9001/v1", "http://127.0.0.1:9001/health")
    assert plan.media.health_url == "http://127.0.0.1:8080/_health"
    assert "--host=0.0.0.0" in plan.engines[0].argv


def test_an_ipv6_address_is_written_as_urls_want_it() -> None:
    plan = plan_of(HOST="::1", MEDIA_HOST="::1")
    assert (plan.url, plan.media.url) == ("http://[::1]:8010/v1", "http://[::1]:8080")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("models/x", HOME / "models/x"), ("/models/x", Path("/models/x")), ("~/models/x", Path("/home/someone/models/x")), ("./a b/it's", HOME / "a b/it's")],
)
def test_paths_are_relative_to_the_project_and_a_tilde_is_home(written: str, meant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    plan = plan_of(MODEL_PATH=written, MEDIA_ROOT=written, API_KEYS_FILE=written)
    assert (plan.model_path, plan.media_root, plan.api_keys_file) == (meant, meant, meant)
    assert plan.engines[0].argv[5] == str(meant)
    assert str(meant) in plan.media.argv


def test_no_keys_file_is_none_and_not_the_project() -> None:
    assert plan_of().api_keys_file is None


def test_programs_run_with_the_python_that_planned_them() -> None:
    assert {program.argv[0] for program in plan_of().programs} == {sys.executable}


def test_every_process_of_the_run_can_be_known_by_its_environment() -> None:
    assert {program.env["QWEN_FP8_RUN"] for program in plan_of().programs} == {str(HOME / "run")}


def test_a_plan_may_hold_several_engines() -> None:
    plan = plan_of()
    second = replace(plan.engines[0], name="engine1", port=8011, url="http://127.0.0.1:8011/v1")
    two = through_json(replace(plan, programs=(*plan.programs, second)))
    assert [engine.name for engine in two.engines] == ["engine0", "engine1"]
    assert two.media == plan.media
    assert two.url == plan.url
    assert "# engine1" in describe(two)


def test_the_description_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    plan = plan_of(home=tmp_path / "it's a $HOME", MODEL_PATH="a b/c'd")
    for program, text in zip(plan.programs, describe(plan).split("\n\n"), strict=True):
        title, line = text.split("\n", 1)
        words = shlex.split(line)
        assert title == f"# {program.name}"
        assert tuple(words[len(program.env) :]) == program.argv
        assert words[: len(program.env)] == [f"{key}={value}" for key, value in program.env.items()]


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_a_plan_of_another_version_is_refused(schema: Any) -> None:
    with pytest.raises(OpsError, match="schema") as caught:
        LaunchPlan.from_json({**plan_of().as_json(), "schema": schema})
    assert "Stop the service with the version that started it" in caught.value.fix


@pytest.mark.parametrize("value", [None, [], "plan", 3, {}, {"schema": 1}])
def test_what_is_no_plan_is_told(value: Any) -> None:
    with pytest.raises(OpsError) as caught:
        LaunchPlan.from_json(value)
    assert caught.value.code == "damaged-file"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, inner in items for place in places(inner, (*path, key))]


@pytest.mark.parametrize("key", [*plan_of().as_json()])
@pytest.mark.parametrize("junk", [None, 1, "x", ["x"], [["a", "b", "c"]], {"a": 1}, True, "\0"])
def test_a_plan_with_one_part_replaced_is_told(key: str, junk: Any) -> None:
    value = {**plan_of().as_json(), key: junk}
    try:
        plan = LaunchPlan.from_json(value)
    except OpsError:
        return
    assert plan.home


@given(st.data())
def test_a_damaged_plan_is_told_and_never_a_crash(data: st.DataObject) -> None:
    value = copy.deepcopy(json.loads(json.dumps(plan_of("demo").as_json())))
    *way, last = data.draw(st.sampled_from(places(value)))
    inside = value
    for key in way:
        inside = inside[key]
    if data.draw(st.booleans()):
        del inside[last]
    else:
        inside[last] = data.draw(st.sampled_from([None, 1, "x", [], {}, [1], {"a": 1}, True]))
    try:
        LaunchPlan.from_json(value)
    except OpsError:
        pass
