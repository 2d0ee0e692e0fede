"""What is in the demo checkpoint, built for real."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.weights.demo import architecture, is_current, random_weights

torch = pytest.importorskip("torch", reason="needs the cpu extra")
tokenizers = pytest.importorskip("tokenizers", reason="needs the cpu extra")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qwen_fp8_ops.weights.demo", str(folder)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "demo"
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "tokens" in done.stderr
    return folder


@pytest.fixture(scope="module")
def vocabulary(checkpoint: Path) -> dict[str, int]:
    words: dict[str, int] = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab()
    return words


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found: dict[str, Any] = json.loads(file.read(length))
    found.pop("__metadata__")
    return found


def test_two_builds_are_equal_byte_for_byte(checkpoint: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "demo").returncode == 0
    files = sorted(path.name for path in checkpoint.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "demo").iterdir())
    for name in files:
        assert (checkpoint / name).read_bytes() == (tmp_path / "demo" / name).read_bytes(), name


def test_it_is_current_and_readable_by_others(checkpoint: Path) -> None:
    assert is_current(checkpoint)
    assert {path.stat().st_mode for path in checkpoint.iterdir()} == {(checkpoint / "config.json").stat().st_mode}


def test_a_refusal_is_told_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    done = build(tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.startswith("Error: The demo checkpoint cannot be made in")
    assert "Traceback" not in done.stderr


def test_the_index_names_every_tensor_in_its_shard(checkpoint: Path) -> None:
    index = read(checkpoint / "model.safetensors.index.json")
    shards = {path.name: header(path) for path in checkpoint.glob("*.safetensors")}
    assert len(shards) == 2
    assert {name: shard for shard, tensors in shards.items() for name in tensors} == index["weight_map"]
    found = {name: tuple(tensor["shape"]) for tensors in shards.values() for name, tensor in tensors.items()}
    assert found == dict(architecture.tensors())
    assert {tensor["dtype"] for tensors in shards.values() for tensor in tensors.values()} == {"BF16"}
    assert index["metadata"]["total_size"] == sum(
        end - begin for tensors in shards.values() for begin, end in (tensor["data_offsets"] for tensor in tensors.values())
    )


def test_the_config_keeps_to_the_large_models_form(checkpoint: Path, vocabulary: dict[str, int]) -> None:
    config = read(checkpoint / "config.json")
    text, vision = config["text_config"], config["vision_config"]
    assert config["architectures"] == ["Qwen3VLMoeForConditionalGeneration"]
    assert (text["head_dim"], text["norm_topk_prob"], text["vocab_size"]) == (64, True, len(vocabulary))
    assert text["max_position_embeddings"] >= 32768
    assert len(vision["deepstack_visual_indexes"]) == 3 <= text["num_hidden_layers"]
    assert [config["image_token_id"], config["video_token_id"]] == [vocabulary["<|image_pad|>"], vocabulary["<|video_pad|>"]]
    for width in (text["hidden_size"], text["moe_intermediate_size"], vision["hidden_size"], vision["intermediate_size"]):
        assert width % 128 == 0


def test_the_tokenizer_splits_as_qwen_does(checkpoint: Path) -> None:
    words = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert words.encode("1234").tokens == ["1", "2", "3", "4"]
    assert words.encode("<|im_start|>assistant\n<think>\n").tokens[-2:] == ["<think>", "Ċ"]
    text = "Größe: 日本 🙂 <tool_call>\n{}\n</tool_call>"
    assert words.decode(words.encode(text).ids) == text
    assert words.decode(words.encode("a<|im_end|>").ids) == "a"


def test_every_token_leads_to_the_step_that_follows_it(vocabulary: dict[str, int]) -> None:
    """The step's tokens win by so much that even a temperature of 2 cannot leave the walk."""
    weights = random_weights.make(vocabulary)
    steps = random_weights.walk(vocabulary)
    hidden = weights["model.language_model.embed_tokens.weight"].float()
    logits = torch.nn.functional.rms_norm(hidden, hidden.shape[1:]) @ weights["lm_head.weight"].float().T
    for token, step in enumerate(random_weights.next_steps(vocabulary, steps)):
        mine = logits[token, steps[step]].min().item()
        logits[token, steps[step]] = -1e9
        assert mine > logits[token].max().item() + 20, (token, step)


def test_the_walk_thinks_answers_and_ends(vocabulary: dict[str, int]) -> None:
    steps = random_weights.walk(vocabulary)
    following = random_weights.next_steps(vocabulary, steps)
    visited: list[int] = []
    token = vocabulary["Ċ"]
    while token != vocabulary["<|im_end|>"] and len(visited) < 100:
        step = following[token]
        visited.append(step)
        token = steps[step][0]
    assert visited == list(range(len(steps)))
    assert steps[random_weights.WORDS] == [vocabulary["</think>"]]
    spoken = {token for step in steps for token in step}
    assert spoken & {vocabulary[mark] for mark in ("<|image_pad|>", "<|video_pad|>", "<|im_start|>", "<tool_call>")} == set()
