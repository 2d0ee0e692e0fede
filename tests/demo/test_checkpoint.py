"""What is in the demo checkpoint: the FP8 form that the package brings, and the bfloat16 copy that a CPU serves."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.weights.demo import architecture, fp8, is_current
from qwen_fp8_ops.weights.demo.recipe import ON_GPU, SHIPPED

torch = pytest.importorskip("torch", reason="needs the cpu extra")
tokenizers = pytest.importorskip("tokenizers", reason="needs the cpu extra")


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qwen_fp8_ops.weights.demo", str(folder), *options], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "demo"
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "7.0 million trained weights" in done.stderr
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
    assert len(shards) == 6
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


def tensors_of(folder: Path) -> dict[str, Any]:
    load_file = pytest.importorskip("safetensors.torch").load_file
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def test_the_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 12e6


def test_the_shipped_form_is_the_large_models_fp8_layout() -> None:
    shipped = tensors_of(SHIPPED)
    quantized = {name for name, value in shipped.items() if value.dtype == torch.float8_e4m3fn}
    config = read(SHIPPED / "config.json")["quantization_config"]
    assert (config["quant_method"], config["weight_block_size"]) == ("fp8", [128, 128])
    assert quantized == {name for name, _ in architecture.tensors() if fp8.QUANTIZED.search(name)}
    assert len(quantized) == architecture.LAYERS * (4 + 3 * architecture.EXPERTS)
    for name in quantized:
        rows, columns = shipped[name].shape
        scales = shipped[name + fp8.SCALE]
        assert (tuple(scales.shape), scales.dtype) == ((rows // 128, columns // 128), torch.float32)
        assert not any(name.startswith(kept) for kept in config["modules_to_not_convert"])
    assert {value.dtype for name, value in shipped.items() if name not in quantized and not name.endswith(fp8.SCALE)} == {torch.bfloat16}


def test_the_cpu_serves_exactly_the_fp8_values(checkpoint: Path) -> None:
    """Bit by bit, and nothing is lost: every product of a value and its scale is a bfloat16 number."""
    shipped, served = tensors_of(SHIPPED), tensors_of(checkpoint)
    assert served.keys() == {name for name in shipped if not name.endswith(fp8.SCALE)}
    for name, weight in served.items():
        if name + fp8.SCALE in shipped:
            scales = shipped[name + fp8.SCALE].repeat_interleave(128, 0).repeat_interleave(128, 1)
            assert torch.equal(weight.float(), shipped[name].float() * scales), name
        else:
            assert torch.equal(weight, shipped[name]), name


def test_a_gpu_gets_the_fp8_form(tmp_path: Path) -> None:
    done = build(tmp_path / "demo", "--fp8")
    assert done.returncode == 0, done.stderr
    assert is_current(tmp_path / "demo", ON_GPU) and not is_current(tmp_path / "demo")
    assert "quantization_config" in read(tmp_path / "demo/config.json")


def test_quantising_what_was_dequantised_changes_nothing(checkpoint: Path) -> None:
    again = fp8.quantize_all(tensors_of(checkpoint))
    assert all(torch.equal(fp8.dequantize_all(again)[name].float(), value.float()) for name, value in tensors_of(checkpoint).items())


@pytest.mark.parametrize("scale", [1e-8, 0.02, 1.0, 300.0])
def test_quantising_keeps_three_bits_behind_the_point(scale: float) -> None:
    weight = torch.randn(256, 384, generator=torch.Generator().manual_seed(1)) * scale
    values, scales = fp8.quantize(weight)
    assert tuple(scales.shape) == (2, 3)
    assert torch.equal(torch.exp2(torch.log2(scales).round()), scales), "powers of two"
    error = (fp8.dequantize(values, scales).float() - weight).abs()
    largest = weight.reshape(2, 128, 3, 128).abs().amax((1, 3)).repeat_interleave(128, 0).repeat_interleave(128, 1)
    assert bool((error <= weight.abs() / 16 + largest * 2**-16).all())


def test_the_record_of_its_training_is_beside_it() -> None:
    told = read(SHIPPED / "training.json")
    assert told["step"] == told["steps"], "the training came to its end"
    assert {"seed", "batch", "learning_rate", "losses", "right_on_512_held_out"} <= told.keys()
