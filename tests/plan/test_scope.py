"""Which settings another engine is enough for, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.kinds import Choice, Switch, Whole
from qwen_fp8_ops.config.load import Configuration, load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.engine import weight_cache
from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.plan.launch import LaunchPlan, make_plan
from qwen_fp8_ops.plan.scope import JOB, OTHER_PROGRAMS, SUPERVISOR, require_engine_alone

PATHS = RunPaths(Path("/srv/qwen"))
OTHER: dict[str, str] = {
    "MODEL_ID": "a/b", "MODEL_REVISION": "v2", "MODEL_PATH": "elsewhere", "SERVED_MODEL_NAME": "other", "HOST": "::1", "PORT": "8011", "MEDIA_HOST": "::1",
    "MEDIA_PORT": "8081", "MEDIA_ROOT": "pictures", "GPU_MEMORY_UTIL": "0.8", "VLLM_EXTRA_ARGS": "--seed 3", "TEMPERATURE": "0.1", "TOP_P": "0.5",
    "REASONING_PARSER": "", "TOOL_CALL_PARSER": "", "ALLOWED_MEDIA_DOMAINS": "*", "API_KEYS_FILE": "keys", "GPU_NAME": "H200", "SLURM_PARTITION": "gpu",
    "SLURM_TIME": "1:00:00", "SLURM_MEM": "1G", "SLURM_JOB_NAME": "x", "SLURM_EXTRA_ARGS": "--qos=high",
}  # fmt: skip
ONLY_ENGINE = sorted(set(OPTIONS) - OTHER_PROGRAMS - SUPERVISOR - JOB)


def changed(key: str) -> str:
    """Another value of the key."""
    row = OPTIONS[key]
    if key in OTHER:
        return OTHER[key]
    if isinstance(row.kind, Switch):
        return "on" if row.default == "off" else "off"
    if isinstance(row.kind, Choice):
        return next(word for word in row.kind.words if word != row.default)
    assert isinstance(row.kind, Whole), key
    return str(int(row.default) + 1 if int(row.default) < row.kind.high else int(row.default) - 1)


def made(**settings: Any) -> tuple[LaunchPlan, Configuration]:
    configuration = load(overrides=[f"{key}={value}" for key, value in {"GPU_COUNT": 16, **settings}.items()])
    return make_plan(configuration, PATHS, python="python"), configuration


def refusal(before: dict[str, Any], **after: Any) -> ConfigError | None:
    old, _ = made(**before)
    new, configuration = made(**{**before, **after})
    try:
        require_engine_alone(old, new, configuration)
    except ConfigError as error:
        return error
    return None


@pytest.mark.parametrize("key", ONLY_ENGINE)
def test_what_may_be_changed_with_the_engine_alone_changes_nothing_else(key: str) -> None:
    value = changed(key)
    old, new = made()[0], made(**{key: value})[0]
    assert old.texts != new.texts
    assert refusal({}, **{key: value}) is None
    assert new.url == old.url
    assert [program for program in new.programs if not program.is_engine] == [program for program in old.programs if not program.is_engine]


@pytest.mark.parametrize("key", ONLY_ENGINE)
def test_with_weights_in_gpu_memory_what_they_hang_on_is_refused_and_nothing_else_touches_them(key: str) -> None:
    warm = {"WEIGHT_CACHE": "on", "TENSOR_PARALLEL_SIZE": 8}
    old, new = made(**warm)[0], made(**{**warm, key: changed(key)})[0]
    assert old.weight_cache and new.weight_cache
    same = new.weight_cache.runs_as(old.weight_cache)
    error = refusal(warm, **{key: changed(key)})
    assert (error is None) == same
    if error:
        assert key in weight_cache.KEYS
        assert f"{key}={changed(key)} (--set; now " in error.message
        assert "the weights in GPU memory would be others (WEIGHT_CACHE=on)" in error.message
        assert error.fix.splitlines()[0] == f"qwen-fp8 restart --set {key}={changed(key)}"


@pytest.mark.parametrize(
    "key", ["MODEL_PATH", "DTYPE", "TENSOR_PARALLEL_SIZE", "EXPERT_PARALLEL", "KV_CACHE_DTYPE", "MM_ENCODER_TP_MODE", "LOAD_STRATEGY", "VLLM_EXTRA_ARGS"]
)
def test_these_the_weights_hang_on(key: str) -> None:
    value = {"EXPERT_PARALLEL": "off", "LOAD_STRATEGY": "lazy"}.get(key, changed(key))
    assert refusal({"WEIGHT_CACHE": "on"}, **{key: value})
    assert refusal({}, **{key: value}) is None


@pytest.mark.parametrize(
    "key", ["MAX_NUM_SEQS", "MAX_MODEL_LEN", "GPU_MEMORY_UTIL", "MAX_NUM_BATCHED_TOKENS", "MAX_IMAGES", "ENFORCE_EAGER", "LOG_LEVEL", "START_TIMEOUT"]
)
def test_these_leave_the_weights_where_they_are(key: str) -> None:
    assert refusal({"WEIGHT_CACHE": "on"}, **{key: changed(key)}) is None


def test_without_any_picture_there_is_no_vision_tower_in_the_cache() -> None:
    assert refusal({"WEIGHT_CACHE": "on"}, MAX_IMAGES=1) is None
    assert refusal({"WEIGHT_CACHE": "on", "MAX_VIDEOS": 0}, MAX_IMAGES=0)


@pytest.mark.parametrize("key", sorted(OTHER_PROGRAMS | SUPERVISOR | JOB))
def test_what_needs_more_is_named_with_the_command(key: str) -> None:
    error = refusal({}, **{key: changed(key)})
    assert error
    assert error.code == "beyond-engine"
    assert error.message.startswith("This setting needs more than another engine:\n")
    assert f"{key}={changed(key)} (--set; now {OPTIONS[key].default or 'empty'})" in error.message
    command = f"qwen-fp8 restart --set {key}=" if key in OTHER_PROGRAMS else "./stop_service.sh" if key in SUPERVISOR else f"qwen-fp8 submit --set {key}="
    assert error.fix.startswith(command)


def test_all_of_them_are_named_at_once() -> None:
    error = refusal({}, PORT=8011, MEDIA_ROOT="pictures", MAX_NUM_SEQS=8)
    assert error
    assert error.message.startswith("These settings need more than another engine:\n")
    assert "PORT=8011" in error.message and "MEDIA_ROOT=pictures" in error.message and "MAX_NUM_SEQS" not in error.message


def test_the_next_jobs_settings_in_config_env_are_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "config.env"
    file.write_text("GPU_COUNT=16\nSLURM_TIME=1:00:00\n")
    old, _ = made()
    configuration = load(config_file=file)
    require_engine_alone(old, make_plan(configuration, PATHS, python="python"), configuration)
    file.write_text("GPU_COUNT=16\nMEDIA_PORT=8081\n")
    configuration = load(config_file=file)
    with pytest.raises(ConfigError, match=r"MEDIA_PORT=8081 \(config.env line 2; now 8080\)") as refused:
        require_engine_alone(old, make_plan(configuration, PATHS, python="python"), configuration)
    assert refused.value.fix.splitlines() == ["qwen-fp8 restart", "Or leave them as they are."]
