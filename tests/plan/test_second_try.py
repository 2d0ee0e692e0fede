"""What the memory plan makes of the changes that a diagnosis proposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.failures.rule import Change
from qwen_fp8_ops.plan.cards import GIB
from qwen_fp8_ops.plan.second_try import replan
from qwen_fp8_ops.plan.situation import Situation
from tests.plan.cases import settings_of

SHARE = Change("GPU_MEMORY_UTIL", 0.95, "more of each GPU")
SMALL_STEPS = Change("MAX_NUM_BATCHED_TOKENS", 4096, "less to compute at once")
TOWER = Change("MM_ENCODER_TP_MODE", "weights", "the tower is split")


def situation(folder: Path, **values: Any) -> Situation:
    return Situation(settings_of(**values), folder / "no model here", RunPaths(folder), {"CUDA_VISIBLE_DEVICES": ""})


def gib(count: float) -> int:
    return round(count * GIB)


def pairs(changes: tuple[Change, ...]) -> list[tuple[str, str | float]]:
    return [(change.key, change.value) for change in changes]


def test_where_the_plan_fits_everything_that_fits_is_kept(tmp_path: Path) -> None:
    assert replan(situation(tmp_path), [SHARE, SMALL_STEPS, TOWER]) == (SHARE, SMALL_STEPS, TOWER)


def test_what_the_dead_engine_measured_corrects_the_plan(tmp_path: Path) -> None:
    """2.31 GiB are missing: five hundredths of the GPU give 3.96, the split tower only 1.07."""
    found = replan(situation(tmp_path), [SHARE, SMALL_STEPS, TOWER], gib(-2.31))
    assert found[:2] == (SHARE, SMALL_STEPS)
    assert TOWER not in found
    none = replan(situation(tmp_path), [SHARE, TOWER], gib(-9))
    assert SHARE not in none and TOWER not in none


def test_the_plans_own_ways_follow_with_numbers_of_its_own(tmp_path: Path) -> None:
    found = replan(situation(tmp_path), [SHARE], gib(0.6))
    assert pairs(found)[:2] == [("GPU_MEMORY_UTIL", 0.95), ("MAX_MODEL_LEN", 13_360)]
    assert "13,376 tokens of KV cache" in found[1].why


def test_the_engines_own_number_stands_and_is_not_repeated(tmp_path: Path) -> None:
    """The plan would say 118,448 for the same room: the two agree to a few blocks."""
    estimate = Change("MAX_MODEL_LEN", 118_400, "the engine's own estimate", known=True)
    found = replan(situation(tmp_path, MAX_MODEL_LEN=262_144), [estimate], gib(5.31))
    assert found[0] == estimate
    assert [change.key for change in found].count("MAX_MODEL_LEN") == 1
    too_much = Change("MAX_MODEL_LEN", 200_000, "a guess")
    assert too_much not in replan(situation(tmp_path, MAX_MODEL_LEN=262_144), [too_much], gib(5.31))


def test_too_few_gpus_for_the_weights_are_told_how_many_would_do(tmp_path: Path) -> None:
    found = replan(situation(tmp_path, GPU_COUNT=2, TENSOR_PARALLEL_SIZE=2), [TOWER])
    assert pairs(found) == [("GPU_COUNT", 4), ("GPU_COUNT", 8)], "and not 16, which no node has"


def test_without_a_known_model_the_proposals_stay_as_they_are(tmp_path: Path) -> None:
    unknown = situation(tmp_path, MODEL_ID="somebody/else")
    assert replan(unknown, [SHARE, TOWER], gib(-30)) == (SHARE, TOWER)
