"""From layers to settings: who wins, what each value remembers, and how everything that is wrong is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.config.env_file import env_line
from qwen_fp8_ops.config.load import NOT_KEYS, PROFILES, Configuration, find_config_file, load, profile_names
from qwen_fp8_ops.config.paths import RunPaths, find_home
from qwen_fp8_ops.config.settings import OPTIONS, Settings
from qwen_fp8_ops.errors import ConfigError, ExitCode


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.env"


def problems(**asked: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**asked)  # type: ignore[arg-type]
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.fix
    head, *lines = caught.value.message.split("\n  ")
    assert head.startswith("The configuration is wrong" if len(lines) == 1 else f"The configuration has {len(lines)} errors")
    return lines


def test_without_anything_every_value_is_its_default() -> None:
    found = load()
    assert found.settings == Settings()
    assert {source.origin for source in found.sources.values()} == {"default"}
    assert list(found.sources) == list(OPTIONS)
    assert found.profile == "h100x8"


def test_the_numbers_of_the_first_deployment_are_the_defaults() -> None:
    settings = load().settings
    assert (settings.port, settings.tensor_parallel_size, settings.max_model_len) == (8010, 8, 32768)
    assert (settings.gpu_memory_util, settings.max_num_seqs, settings.dtype) == (0.9, 4, "bfloat16")
    assert (settings.temperature, settings.max_tokens) == (0.7, 8192)
    assert (settings.host, settings.media_port, settings.gpu_count, settings.slurm_time) == ("127.0.0.1", 8080, 8, "24:00:00")


def test_each_layer_wins_over_the_ones_before_and_says_so(config_file: Path) -> None:
    config_file.write_text("# words\nMAX_NUM_SEQS=1\nMAX_MODEL_LEN=2048\nTOP_K=7\nTOP_P=0.5\nTEMPERATURE=0.1\n")
    found = load(
        config_file=config_file,
        profiles=["long-context", "throughput", "creative"],
        environ={"QWEN_FP8_TOP_P": "0.6", "QWEN_FP8_TEMPERATURE": "0.2", "PORT": "1", "QWEN_FP8_HOME": "/x"},
        overrides=["TEMPERATURE=0.3", "TEMPERATURE=0.4"],
    )
    settings = found.settings
    assert (settings.max_num_seqs, settings.max_model_len, settings.top_k, settings.top_p, settings.temperature) == (8, 65536, 50, 0.6, 0.4)
    origins = {key: found.sources[key].origin for key in ("MAX_NUM_SEQS", "MAX_MODEL_LEN", "TOP_K", "TOP_P", "TEMPERATURE", "PORT")}
    assert origins == {
        "MAX_NUM_SEQS": "profile throughput line 3",
        "MAX_MODEL_LEN": "profile long-context line 2",
        "TOP_K": "profile creative line 4",
        "TOP_P": "QWEN_FP8_TOP_P",
        "TEMPERATURE": "--set",
        "PORT": "default",
    }
    assert found.profile == "long-context+throughput+creative"


def test_a_value_of_the_file_names_its_line(config_file: Path) -> None:
    config_file.write_text("\n\n\n# four\nPORT=9001\n")
    source = load(config_file=config_file).sources["PORT"]
    assert (source.origin, source.text) == ("config.env line 5", "9001")


@pytest.mark.parametrize(
    ("profile", "values"),
    [
        ("h100x8", {}),
        ("h100x4", {"gpu_count": 4, "tensor_parallel_size": 4}),
        ("throughput", {"gpu_memory_util": 0.95, "max_num_seqs": 8}),
        ("long-context", {"max_model_len": 65536, "max_num_seqs": 2}),
        ("fast", {"temperature": 0.3, "max_tokens": 512}),
        ("creative", {"temperature": 1.0, "top_p": 0.95, "top_k": 50}),
        ("demo", {"model_id": "demo", "gpu_count": 0, "tensor_parallel_size": 1}),
    ],
)
def test_profiles_carry_their_numbers(profile: str, values: dict[str, object]) -> None:
    settings = load(profiles=[profile]).settings
    assert {name: getattr(settings, name) for name in values} == values


def test_a_tuning_preset_changes_nothing_but_its_own_keys() -> None:
    changed = {profile: sorted(key for key, source in load(profiles=[profile]).sources.items() if source.origin != "default") for profile in profile_names()}
    assert changed.pop("demo")
    assert changed.pop("h100x4")
    assert changed == {
        "h100x8": [],
        "throughput": ["GPU_MEMORY_UTIL", "MAX_NUM_SEQS"],
        "long-context": ["MAX_MODEL_LEN", "MAX_NUM_SEQS"],
        "fast": ["MAX_TOKENS", "TEMPERATURE"],
        "creative": ["TEMPERATURE", "TOP_K", "TOP_P"],
    }


@pytest.mark.parametrize(("profiles", "seqs"), [(("throughput", "long-context"), 2), (("long-context", "throughput"), 8), (("fast",), 4)])
def test_of_several_profiles_the_later_wins(profiles: tuple[str, ...], seqs: int) -> None:
    assert load(profiles=profiles).settings.max_num_seqs == seqs


def test_every_profile_goes_with_every_other() -> None:
    for first in profile_names():
        for second in profile_names():
            assert load(profiles=[first, second]).profiles == (first, second)


def test_all_that_is_wrong_is_told_at_once_with_origin_value_and_what_is_allowed(config_file: Path) -> None:
    config_file.write_bytes(b"\xef\xbb\xbfexport PORT=8010x\r\n\r\nport=1\r\nMAX_NUM_SEQS=\r\nnonsense\r\nMODEL_PATH=\"$HOME/x\"\r\n")
    lines = problems(config_file=config_file, profiles=["dem"], environ={"QWEN_FP8_TOP_P": "2", "QWEN_FP8_PROT": "1"}, overrides=["DTYPE=int8", "QWEN_FP8_PORT=1", "TOP_K"])
    assert lines == [
        "config.env line 1: PORT=8010x: not a whole number; allowed: a port from 1 to 65535, or auto",
        "config.env line 3: unknown key port; did you mean PORT?",
        "config.env line 4: MAX_NUM_SEQS=: a value is needed: a whole number from 1 to 1024; the default is 4",
        "config.env line 5: nonsense has no =value",
        "config.env line 6: MODEL_PATH=$HOME/x: variables are not expanded here; write the path itself; allowed: a folder",
        "--profile dem: no such profile; there are creative, demo, fast, h100x4, h100x8, long-context, throughput",
        "QWEN_FP8_PROT: no key has this name; did you mean QWEN_FP8_PORT?",
        "QWEN_FP8_TOP_P: TOP_P=2: out of range; allowed: a number from 0.01 to 1",
        "--set: DTYPE=int8: unknown choice; allowed: one of bfloat16, float16, auto",
        "--set: unknown key QWEN_FP8_PORT; did you mean PORT?",
        "--set TOP_K: not of the form KEY=VALUE",
    ]


def test_the_message_says_which_config_env_is_meant(config_file: Path) -> None:
    config_file.write_text("PORT=x\n")
    with pytest.raises(ConfigError, match="configuration is wrong") as caught:
        load(config_file=config_file)
    assert str(config_file) in caught.value.message.splitlines()[0]


def test_a_value_of_a_lower_layer_is_checked_even_when_a_higher_one_wins(config_file: Path) -> None:
    config_file.write_text("PORT=x\n")
    assert len(problems(config_file=config_file, overrides=["PORT=8011"])) == 1


@pytest.mark.parametrize("key", ["API_KEYS_FILE", "REASONING_PARSER", "TOOL_CALL_PARSER", "VLLM_EXTRA_ARGS", "ALLOWED_MEDIA_DOMAINS"])
def test_an_empty_variable_is_a_value_where_nothing_is_one(key: str, config_file: Path) -> None:
    config_file.write_text(f"{key}=abc\n")
    found = load(config_file=config_file, environ={f"QWEN_FP8_{key}": ""})
    assert not getattr(found.settings, key.lower())
    assert found.sources[key].origin == f"QWEN_FP8_{key}"


def test_variables_that_are_no_settings_are_left_alone() -> None:
    assert load(environ={f"QWEN_FP8_{name}": "x" for name in NOT_KEYS} | {"qwen_fp8_port": "1", "PORT": "1"}).settings == Settings()


def test_set_takes_space_around_and_equal_signs_inside() -> None:
    settings = load(overrides=[" PORT = 8011 ", "VLLM_EXTRA_ARGS=--a=b '--c d'", "MODEL_PATH=/with space/# and =", "GPU_NAME="]).settings
    assert (settings.port, settings.vllm_extra_args, settings.model_path, settings.gpu_name) == (8011, ("--a=b", "--c d"), "/with space/# and =", "")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["GPU_COUNT=4"], "TENSOR_PARALLEL_SIZE=8 (default) is more than GPU_COUNT=4 (--set)"),
        (["PORT=9000", "MEDIA_PORT=9000"], "PORT=9000 (--set) and MEDIA_PORT=9000 (--set) are the same port"),
        (["MAX_NUM_SEQS=512", "MAX_NUM_BATCHED_TOKENS=256"], "MAX_NUM_BATCHED_TOKENS=256 (--set) is less than MAX_NUM_SEQS=512 (--set): every running request takes a token of each step"),
    ],
)
def test_keys_that_contradict_each_other_are_told_with_their_origins(overrides: list[str], line: str) -> None:
    assert problems(overrides=overrides) == [line]


def test_on_the_cpu_tensor_parallel_needs_no_gpus() -> None:
    assert load(overrides=["GPU_COUNT=0", "TENSOR_PARALLEL_SIZE=2"]).settings.on_cpu


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("MODEL_ID", text) for text in ("../x", "a/b/c", "-a/b", "Qwen", "a b/c", "demo/")),
        *(("HOST", text) for text in ("", "a b", "http://x", "-x", "x/")),
        *(("SLURM_TIME", text) for text in ("", "1d", "24:99:00", "a")),
        *(("SLURM_JOB_NAME", text) for text in ("", "-a", "a b", "a" * 65)),
        *(("MAX_NUM_BATCHED_TOKENS", text) for text in ("16384", "255")),
        *(("SERVED_MODEL_NAME", text) for text in ("", "a b", "a'b")),
        *(("ALLOWED_MEDIA_DOMAINS", text) for text in ("http://x", "a,*.b")),
    ],
)
def test_texts_that_a_key_does_not_take(key: str, text: str) -> None:
    assert len(problems(overrides=[f"{key}={text}"])) == 1


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("HOST", text) for text in ("127.0.0.1", "::1", "::", "0.0.0.0", "node-7.cluster", "fe80::1")),
        *(("SLURM_TIME", text) for text in ("60", "24:00:00", "2-00:00", "1-12", "30:00")),
        *(("MODEL_ID", text) for text in ("demo", "Qwen/Qwen3-VL-235B-A22B-Thinking-FP8")),
        ("MODEL_REVISION", "refs/pr/3"),
    ],
)
def test_texts_that_a_key_takes(key: str, text: str) -> None:
    assert load(overrides=[f"{key}={text}"]).sources[key].text == text


def test_the_texts_of_a_configuration_give_the_same_settings_again(config_file: Path) -> None:
    config_file.write_text("MODEL_PATH='a b'\nVLLM_EXTRA_ARGS='--x \"y z\"'\nALLOWED_MEDIA_DOMAINS=a.example,b.example\n")
    first = load(config_file=config_file, profiles=["demo"])
    again = load(overrides=[f"{key}={source.text}" for key, source in first.sources.items()])
    assert again.settings == first.settings


GOOD_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="$"), min_size=1, max_size=40).map(str.strip).filter(bool)


@given(text=GOOD_TEXT, port=st.integers(1, 65535).filter(lambda port: port != 8080))
def test_good_values_come_through_every_layer_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str, port: int) -> None:
    path = tmp_path_factory.getbasetemp() / "good.env"
    path.write_text(f"{env_line('MODEL_PATH', text)}\n{env_line('PORT', str(port))}\n", encoding="utf-8")
    layers: list[Configuration] = [
        load(config_file=path),
        load(environ={"QWEN_FP8_MODEL_PATH": text, "QWEN_FP8_PORT": str(port)}),
        load(overrides=[f"MODEL_PATH={text}", f"PORT={port}"]),
    ]
    assert {(found.settings.model_path, found.settings.port) for found in layers} == {(text, port)}


LINES = st.lists(
    st.tuples(st.sampled_from([*OPTIONS, "port", "X", "", "export PORT"]), st.sampled_from(["=", " = ", "", "=="]), st.text(max_size=12)).map("".join), max_size=6
)


@given(data=st.binary(max_size=120) | LINES.map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_gives_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(data)
    message = ""
    try:
        load(config_file=path)
    except ConfigError as error:
        message = error.message
    assert message.replace("\n", "").isprintable()


@given(st.dictionaries(st.sampled_from([f"QWEN_FP8_{key}" for key in [*OPTIONS, "X", ""]]), st.text(max_size=12)), st.lists(st.text(max_size=20), max_size=3))
def test_any_environment_and_any_flags_give_settings_or_a_config_error(environ: dict[str, str], overrides: list[str]) -> None:
    try:
        load(environ=environ, overrides=overrides, profiles=overrides[:1])
    except ConfigError as error:
        error.message.encode()


def test_the_file_asked_for_wins_then_the_current_folder_then_the_home(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    assert find_config_file(None, here, home) is None
    (home / "config.env").touch()
    assert find_config_file(None, here, home) == home / "config.env"
    (here / "config.env").touch()
    assert find_config_file(None, here, home) == here / "config.env"
    assert find_config_file(home / "config.env", here, home) == home / "config.env"
    with pytest.raises(ConfigError, match=r"not found: .*other\.env"):
        find_config_file(tmp_path / "other.env", here, home)


def test_a_dead_link_named_config_env_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.env").symlink_to(tmp_path / "gone")
    found = find_config_file(None, tmp_path, tmp_path)
    assert problems(config_file=found) == ["config.env: cannot be read: No such file or directory"]


def test_a_folder_as_config_file_is_told() -> None:
    assert problems(config_file=PROFILES) == ["profiles: cannot be read: Is a directory"]


def test_paths_are_under_the_home_unless_they_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    folder = load().settings.folder
    assert folder("models/x", tmp_path) == tmp_path / "models/x"
    assert folder("/data/x", tmp_path) == Path("/data/x")
    assert folder("~/x", tmp_path) == Path("/home/me/x")
    assert folder("~no-such-user-here/x", tmp_path) == tmp_path / "~no-such-user-here/x"


def test_the_home_is_the_one_named_or_the_checkout(tmp_path: Path) -> None:
    assert find_home({"QWEN_FP8_HOME": str(tmp_path / "a b" / "..")}, Path("/")) == tmp_path
    assert (find_home({"QWEN_FP8_HOME": ""}, tmp_path) / "start_service.sh").exists()
    assert RunPaths(tmp_path).state == tmp_path / "run" / "state.json"
