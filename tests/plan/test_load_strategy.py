from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qwen_fp8_ops.engine.load_flags import FLAGS, load_flags
from qwen_fp8_ops.plan.cards import GIB
from qwen_fp8_ops.plan.load_strategy import LoadChoice, Storage, choose
from qwen_fp8_ops.weights.facts import CARD_235B, facts_from_config
from tests.plan.cases import CONFIG_30B, demo_facts, settings_of

TP4 = {"TENSOR_PARALLEL_SIZE": 4}
ONE = {"TENSOR_PARALLEL_SIZE": 1, "GPU_COUNT": 1}
SIZE = CARD_235B.checkpoint_bytes
SMALL = facts_from_config(CONFIG_30B)


def chosen(filesystem: str, free_gib: int, *profiles: str, instanttensor: bool = False, facts: Any = CARD_235B, **values: Any) -> LoadChoice:
    return choose(settings_of(*profiles, **values), facts, Storage(filesystem, free_gib * GIB, instanttensor))


@pytest.mark.parametrize(
    ("filesystem", "free_gib", "values", "strategy"),
    [
        ("lustre", 1000, {}, "prefetch"),
        ("nfs4", 1000, TP4, "prefetch"),
        ("gpfs", 1000, {}, "prefetch"),  # which vLLM by itself does not take for a network
        ("lustre", 200, {}, "lazy"),  # with the expert filter each rank maps its own part
        ("lustre", 200, TP4, "eager"),
        ("tmpfs", 1000, {}, "lazy"),
        ("ext4", 1000, {}, "prefetch"),
        ("xfs", 1000, TP4, "multithread"),  # 4 x 221 GiB fit
        ("xfs", 400, TP4, "prefetch"),
        ("overlay", 100, TP4, "lazy"),
        ("", 1000, {}, "prefetch"),
    ],
)
def test_the_way_follows_from_file_system_memory_and_layout(filesystem: str, free_gib: int, values: dict[str, Any], strategy: str) -> None:
    found = chosen(filesystem, free_gib, **values)
    assert found.strategy == strategy
    assert (filesystem or "unknown") in found.why


@pytest.mark.parametrize("filesystem", ["ext4", "lustre", "tmpfs", "gpfs"])
@pytest.mark.parametrize("free_gib", [10, 300, 2000])
@pytest.mark.parametrize("instanttensor", [False, True])
def test_the_expert_filter_is_never_lost(filesystem: str, free_gib: int, instanttensor: bool) -> None:
    found = chosen(filesystem, free_gib, instanttensor=instanttensor)
    assert found.expert_filter
    assert found.strategy not in ("multithread", "eager")  # the first knows no filter, the second reads whole files
    assert not chosen(filesystem, free_gib, instanttensor=instanttensor, **TP4).expert_filter


def test_instanttensor_where_it_is_installed_and_there_are_gpus() -> None:
    assert chosen("lustre", 1000, instanttensor=True).strategy == "instanttensor"
    assert chosen("tmpfs", 1000, instanttensor=True).strategy == "lazy"
    assert chosen("ext4", 20, "demo", instanttensor=True, facts=demo_facts()).strategy == "lazy"


def test_a_smaller_model_is_read_in_threads() -> None:
    assert chosen("ext4", 100, facts=SMALL, **ONE).strategy == "multithread"
    assert chosen("ext4", 20, facts=SMALL, **ONE).strategy == "lazy"


@pytest.mark.parametrize("word", ["engine", "lazy", "eager", "prefetch", "multithread", "instanttensor"])
def test_who_says_it_gets_it(word: str) -> None:
    assert chosen("lustre", 1000, LOAD_STRATEGY=word) == chosen("ext4", 1000, LOAD_STRATEGY=word)
    assert chosen("lustre", 1000, LOAD_STRATEGY=word).strategy == word
    assert load_flags(word) == FLAGS[word]


@pytest.mark.parametrize("extra", ["--load-format runai_streamer", "--load_format=dummy", """--model-loader-extra-config '{"concurrency": 16}'"""])
def test_a_loader_named_in_the_extra_arguments_is_left_alone(extra: str) -> None:
    found = chosen("lustre", 1000, VLLM_EXTRA_ARGS=extra)
    assert (found.strategy, load_flags(found.strategy)) == ("engine", ())


@pytest.mark.parametrize(
    ("filesystem", "free_gib", "values", "expected"),
    [
        ("lustre", 1000, {}, SIZE),
        ("lustre", 1000, TP4, SIZE),
        ("lustre", 100, TP4, 4 * SIZE),  # each rank reads it all again
        ("lustre", 100, {}, CARD_235B.experts_bytes + 8 * (SIZE - CARD_235B.experts_bytes)),
        ("lustre", 100, {**TP4, "LOAD_STRATEGY": "instanttensor"}, SIZE),
    ],
)
def test_what_comes_from_the_disk(filesystem: str, free_gib: int, values: dict[str, Any], expected: int) -> None:
    assert chosen(filesystem, free_gib, **values).disk_bytes == expected


def test_each_word_of_the_setting_has_its_flags() -> None:
    from qwen_fp8_ops.config.settings import OPTIONS

    words = OPTIONS["LOAD_STRATEGY"].kind.words  # type: ignore[attr-defined]
    assert set(words) - {"auto"} == set(FLAGS)
    assert load_flags("auto") == ()


def test_a_tiny_checkpoint_is_mapped() -> None:
    assert chosen("ext4", 1000, facts=replace(CARD_235B, checkpoint_bytes=GIB), **TP4).strategy == "lazy"
