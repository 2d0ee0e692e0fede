"""What a checkpoint is, from its config and headers alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights import card
from qwen_fp8_ops.weights.facts import CARD_235B, CheckpointFacts, facts_for, facts_from_config, group_of, read_facts
from tests.plan.cases import CONFIG_30B


def groups(facts: CheckpointFacts) -> int:
    return sum(getattr(facts, name) for name in facts.as_json() if name.endswith("_bytes") and name != "checkpoint_bytes")


def test_the_card_agrees_with_the_public_counts() -> None:
    assert CARD_235B.parameters == 235_670_022_896
    assert CARD_235B.vision is not None
    assert CARD_235B.vision.parameters == 576_388_336
    assert round(CARD_235B.checkpoint_bytes / 1e9, 2) == 237.57
    assert round(CARD_235B.checkpoint_bytes / 2**30, 2) == 221.25
    assert groups(CARD_235B) == CARD_235B.checkpoint_bytes == sum(CARD_235B.bytes_by_dtype.values())
    # 94 layers x 128 experts x 3 matrices, one byte a weight, and a scale of 2 bytes for each block of 128 x 128
    assert CARD_235B.experts_bytes == 94 * 128 * 3 * 4096 * 1536
    assert CARD_235B.expert_scales_bytes == 2 * CARD_235B.experts_bytes // 128**2
    assert CARD_235B.source == "card"


def test_without_vision_and_quantisation_it_is_the_text_models_published_size() -> None:
    text: dict[str, Any] = copy.deepcopy({**card.CONFIG_235B["text_config"], "architectures": ["Qwen3MoeForCausalLM"]})
    facts = facts_from_config(text)
    assert facts.checkpoint_bytes == 470_187_269_120
    assert facts.vision is None
    assert facts.quant_method is None


def test_another_moe_has_its_published_size() -> None:
    """Qwen3-30B-A3B: 30,532,122,624 parameters."""
    config = {key: value for key, value in CONFIG_30B.items() if key != "quantization_config"}
    assert facts_from_config(config).parameters == 30_532_122_624


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="needs the cpu extra")
    folder = tmp_path_factory.mktemp("weights") / "demo"
    done = subprocess.run([sys.executable, "-m", "qwen_fp8_ops.weights.demo", str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


COUNT_WITH_TORCH = """
import json, pathlib, sys
from safetensors.torch import load_file
tensors = [tensor for shard in pathlib.Path(sys.argv[1]).glob("*.safetensors") for tensor in load_file(shard).values()]
print(json.dumps([sum(tensor.numel() for tensor in tensors), sum(tensor.nbytes for tensor in tensors)]))
"""


def test_the_demos_facts_agree_with_torchs_own_count(demo: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_WITH_TORCH, str(demo)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = read_facts(demo)
    assert [facts.parameters, facts.checkpoint_bytes] == json.loads(done.stdout)
    assert groups(facts) == facts.checkpoint_bytes
    assert facts.other_bytes == 0
    assert facts.source == "headers"


def test_before_it_is_made_the_demo_is_known_as_well(demo: Path, tmp_path: Path) -> None:
    promised = facts_for(tmp_path / "not there", "demo")
    assert promised.source == "card"
    assert dataclasses.replace(promised, source="headers") == facts_for(demo, "demo")


def test_while_shards_are_missing_the_config_is_believed(demo: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors.index.json"):
        (tmp_path / name).write_bytes((demo / name).read_bytes())
    promised = facts_for(tmp_path, "demo")
    assert dataclasses.replace(promised, source="headers") == read_facts(demo)
    assert promised.source == "config"


def test_the_card_is_found_by_the_repositorys_name(tmp_path: Path) -> None:
    assert facts_for(tmp_path, "a-mirror/qwen3-vl-235b-a22b-thinking-fp8") == CARD_235B
    with pytest.raises(OpsError) as told:
        facts_for(tmp_path, "someone/else")
    assert told.value.code == "no-model"
    assert "someone/else" in told.value.message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "config.json is damaged"),
        ("[]", "is no JSON object"),
        ("{}", "no num_hidden_layers"),
        ('{"num_hidden_layers": -1}', "num_hidden_layers=-1"),
        ('{"num_hidden_layers": true}', "num_hidden_layers=True"),
        ('{"text_config": 5}', "text_config"),
        ('{"quantization_config": {"weight_block_size": [128]}}', "weight_block_size"),
        ('{"architectures": ["LlamaForCausalLM"]}', "num_hidden_layers"),
    ],
)
def test_a_bad_config_is_told_by_its_key(config: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(OpsError) as told:
        read_facts(tmp_path)
    assert said in told.value.message


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(OpsError, match="LlamaForCausalLM"):
        facts_from_config({"architectures": ["LlamaForCausalLM"]})


def test_modules_that_are_not_quantised_have_no_scales() -> None:
    config: dict[str, Any] = copy.deepcopy(dict(card.CONFIG_235B))
    config["quantization_config"]["modules_to_not_convert"] = ["model.language_model.layers.0.self_attn.q_proj", "lm_head"]
    facts = facts_from_config(config)
    assert facts.attention_bytes - CARD_235B.attention_bytes == 64 * 128 * 4096
    assert CARD_235B.attention_scales_bytes - facts.attention_scales_bytes == 2 * 64 * 32
    assert facts.parameters == CARD_235B.parameters


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.language_model.layers.3.mlp.experts.17.up_proj.weight", "experts"),
        ("model.language_model.layers.3.mlp.experts.17.up_proj.weight_scale_inv", "expert_scales"),
        ("model.language_model.layers.3.mlp.experts.gate_up_proj", "experts"),
        ("model.language_model.layers.3.self_attn.k_proj.weight", "attention"),
        ("model.language_model.layers.3.self_attn.k_proj.weight_scale_inv", "attention_scales"),
        ("model.language_model.layers.3.self_attn.k_norm.weight", "norms"),
        ("model.language_model.norm.weight", "norms"),
        ("model.language_model.layers.3.mlp.gate.weight", "router"),
        ("model.language_model.layers.3.mlp.gate_proj.weight", "other"),
        ("model.visual.merger.norm.weight", "vision"),
        ("model.embed_tokens.weight", "embeddings"),
        ("lm_head.weight", "embeddings"),
    ],
)
def test_each_tensor_is_counted_in_its_group(name: str, group: str) -> None:
    assert group_of(name) == group
