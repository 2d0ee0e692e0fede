"""VLLM_EXTRA_ARGS against the keys of config.env."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.engine.command import engine_command
from qwen_fp8_ops.engine.flags import FREE, OWNERS, SECRETS, refuse_clashes
from qwen_fp8_ops.errors import ConfigError

ALL_ON = ["LOAD_STRATEGY=eager", "ENFORCE_EAGER=on", "EXPERT_PARALLEL=on", "LOG_FORMAT=json"]


@pytest.mark.parametrize(
    ("words", "owner"),
    [
        ("--tensor-parallel-size 4", "TENSOR_PARALLEL_SIZE"),
        ("--tensor-parallel-size=4", "TENSOR_PARALLEL_SIZE"),
        ("--tensor_parallel_size 4", "TENSOR_PARALLEL_SIZE"),
        ("--tensor_parallel-size=4", "TENSOR_PARALLEL_SIZE"),
        ("--tensor-par 4", "TENSOR_PARALLEL_SIZE"),
        ("-tp 4", "TENSOR_PARALLEL_SIZE"),
        ("-tp=4", "TENSOR_PARALLEL_SIZE"),
        ("-t 4", "TENSOR_PARALLEL_SIZE"),
        ("-ep", "EXPERT_PARALLEL"),
        ("--no-enable-expert-parallel", "EXPERT_PARALLEL"),
        ("--no_enable_ep_weight_filter", "EXPERT_PARALLEL"),
        ("--ho 0.0.0.0", "HOST"),
        ("--po=9000", "PORT"),
        ("--uds /tmp/socket", "HOST and PORT"),
        ("--dt half", "DTYPE"),
        ("--max-model-len=1k", "MAX_MODEL_LEN"),
        ("--device-memory-utilization 0.5", "GPU_MEMORY_UTIL"),
        ("--limit-mm-per-prompt.video 9", "MAX_IMAGES and MAX_VIDEOS"),
        ("--limit_mm_per_prompt.video=9", "MAX_IMAGES and MAX_VIDEOS"),
        ("--limit-mm.video 9", "MAX_IMAGES and MAX_VIDEOS"),
        ("--override-generation-config.temperature 0", "TEMPERATURE, TOP_P and TOP_K"),
        ("--middleware my.Own", "the gate"),
        ("--mi my.Own", "the gate"),
        ("--grpc", "the gate"),
        ("--config other.yaml", "config.env itself"),
        ("--max-logprobs 5 --seed=1 -tp 2", "TENSOR_PARALLEL_SIZE"),
    ],
)
def test_a_clash_names_the_key_that_is_the_place_for_it(words: str, owner: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_clashes(shlex.split(words))
    assert f"is set by {owner}" in caught.value.message
    assert owner in caught.value.fix


@pytest.mark.parametrize("name", OWNERS)
def test_every_owned_flag_is_refused_in_every_form(name: str) -> None:
    forms = [name, f"{name}=1", f"{name}.part=1"]
    if name.startswith("--"):
        forms += [name.replace("-", "_").replace("__", "--", 1), name[:-1]]
    for form in forms:
        with pytest.raises(ConfigError, match=r"^VLLM_EXTRA_ARGS: "):
            refuse_clashes([form])


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--max-logprobs 5",
        "--max-logprobs -1",
        "--seed=-1",
        "--kv-cache-dtype-skip-layers 0",
        "--reasoning-parser-plugin /path/plugin.py",
        "--compilation-config '{\"mode\": 3}' -O3",
        "--no-async-scheduling",
        "--no-disable-uvicorn-access-log",
        "--chat-template /srv/--port/template.jinja",
        "--safetensors-prefetch-num-threads 8",
    ],
)
def test_flags_that_no_key_sets_pass(words: str) -> None:
    refuse_clashes(shlex.split(words))


@pytest.mark.parametrize("flag", ["--api-key", "--api-k", "--api_key", "--hf-token", "--hf-tok", "--hf_token"])
@pytest.mark.parametrize("form", ["{} canary-1234", "{}=canary-1234"])
def test_a_secret_is_refused_and_not_repeated(flag: str, form: str) -> None:
    with pytest.raises(ConfigError, match="would show its value to every user") as caught:
        refuse_clashes(shlex.split(form.format(flag)))
    assert "canary" not in caught.value.message + caught.value.fix


def test_a_first_word_that_is_no_flag_would_join_our_own_last_flag() -> None:
    with pytest.raises(ConfigError, match=r"begins with 'evil\.example', which is no flag"):
        refuse_clashes(["evil.example", "--seed=1"])


def test_every_flag_that_we_set_has_an_owner_or_is_free() -> None:
    made = set()
    for profile in ("h100x8", "demo"):
        settings = load(profiles=[profile], overrides=ALL_ON).settings
        argv = engine_command(settings, python="python", model=Path("/m"), gate_file=Path("/g"), port=1).argv
        made |= {word.partition("=")[0] for word in argv if word.startswith("--")}
    assert made <= {*OWNERS, *FREE}
    assert {"--safetensors-load-strategy", "--enforce-eager", "--enable-ep-weight-filter", "--tool-call-parser"} <= made


def test_the_owners_are_keys_that_exist() -> None:
    named = {word for owner in OWNERS.values() for word in owner.replace(",", " ").split() if word.isupper()}
    assert named <= set(OPTIONS)
    assert not set(OWNERS) & {*FREE}
    assert set(SECRETS) & set(OWNERS) == {"--api-key"}
