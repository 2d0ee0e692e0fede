"""A weight cache and the engines that map its weights: who begins and ends when, and what is done when one of them fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.harness import StandInService
from tests.service.test_supervision import stopped_clean
from tests.service.warm_service import RANKS, WarmService
from tests.waiting import wait_for

WARM = ["cache begins", "engine begins with mapped weights"]


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[WarmService]:
    service = WarmService(tmp_path / "it's a warm run")
    yield service
    service.close()


def living(pid: int) -> str:
    """What the kernel says of a process; nothing of one that has ended, though nobody may have collected it yet."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    return "" if "State:\tZ" in status else status


def stop(service: StandInService) -> None:
    service.signal(signal.SIGTERM)
    code, said = service.ended()
    assert code == 0, said
    assert stopped_clean(service)


def engine_again(service: StandInService, old: int) -> int:
    wait_for(lambda: service.replaced("engine0", old), "another engine serves")
    return service.pid("engine0")


def test_the_engine_begins_when_the_weights_are_there_and_ends_before_them(warm: WarmService) -> None:
    warm.behave(cache_loads=True)
    warm.start()
    load = wait_for(lambda: (load := warm.status()["load"]) and load["done"] and load, "the cache loads")
    assert (load["phase"], load["done"], load["total"]) == ("weights", 12, 24)
    assert warm.life("engine0") == "waiting"
    assert warm.lives() == ["cache begins"]
    warm.behave()
    warm.wait_state("ready")
    ranks = warm.ranks()
    assert len(ranks) == RANKS
    assert warm.traces_left(ranks)
    stop(warm)
    assert warm.lives() == [*WARM, "engine ended", "cache ended"]
    assert not warm.traces_left(ranks)


def test_an_engine_that_dies_finds_the_weights_where_they_were(warm: WarmService) -> None:
    warm.started()
    cache, old = warm.pid("weight-cache"), warm.pid("engine0")
    os.kill(old, signal.SIGKILL)
    engine_again(warm, old)
    assert warm.pid("weight-cache") == cache
    assert warm.lives() == [*WARM, "engine begins with mapped weights"]
    stop(warm)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.17 GiB.", "cuda-oom-load", "ran out while the engine loaded the weights"),
        (
            "vllm.model_executor.model_loader.weight_cache.protocol.UnsupportedPlatformForIPCError: platform 'cpu' does not support CUDA IPC weight sharing; only CUDA",
            "weight-cache-unsupported",
            "weights cannot be kept in GPU memory here",
        ),
    ],
)
def test_a_cache_that_can_never_load_fails_the_start_with_its_cause(warm: WarmService, words: str, code: str, said: str) -> None:
    warm.behave(cache_dies_with=f"Traceback (most recent call last):\n{words}")
    warm.start()
    exit_code, told = warm.ended()
    assert exit_code == 1
    assert "The program weight-cache does not run" in told
    assert said in told
    assert warm.status()["error"]["code"] == code
    assert warm.lives() == ["cache begins"], "the engine was not even begun, and the cache not tried again"
    assert stopped_clean(warm)


def test_a_cache_that_never_has_its_weights_runs_into_the_time_limit(warm: WarmService) -> None:
    warm.behave(cache_loads=True)
    warm.start(START_TIMEOUT=10)
    code, said = warm.ended()
    assert code == 6
    assert "weight-cache was not ready after 10 s (phase: weights)" in said
    assert stopped_clean(warm)


def test_a_cache_that_is_killed_leaves_the_engine_serving_and_comes_back_before_the_next_one(warm: WarmService) -> None:
    warm.started()
    cache, old, ranks = warm.pid("weight-cache"), warm.pid("engine0"), warm.ranks()
    os.kill(cache, signal.SIGKILL)
    status = warm.wait_state("degraded")
    assert status["ok"]
    assert any("weight-cache" in problem["message"] for problem in status["problems"])
    assert warm.pid("engine0") == old
    assert warm.life("weight-cache") == "waiting"
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks), "what was left of it was ended"
    assert not warm.traces_left(ranks)
    readings = warm.readings()
    wait_for(lambda: warm.readings() > readings + 3, "the delay of a restart is over")  # one reading a second
    assert warm.lives() == WARM, "no second one beside an engine that maps the weights"
    os.kill(old, signal.SIGKILL)
    engine_again(warm, old)
    warm.wait_state("ready")
    assert warm.lives() == [*WARM, *WARM]
    stop(warm)


def test_a_rank_that_is_gone_is_the_end_of_the_cache_and_not_of_the_engine(warm: WarmService) -> None:
    warm.started()
    cache, engine = warm.pid("weight-cache"), warm.pid("engine0")
    os.kill(warm.ranks()[0], signal.SIGKILL)
    wait_for(lambda: warm.life("weight-cache") == "waiting", "the cache is taken for dead")
    assert not Path(f"/proc/{cache}").exists()
    assert warm.pid("engine0") == engine
    status = warm.wait_state("degraded")
    assert any("1 of 2 ranks do not listen any more" in problem["message"] for problem in status["problems"])
    stop(warm)


def test_a_frozen_rank_is_found_and_does_not_end_the_engine(warm: WarmService) -> None:
    warm.started(HANG_TIMEOUT=5)
    engine = warm.pid("engine0")
    os.kill(warm.ranks()[1], signal.SIGSTOP)
    hung = wait_for(lambda: warm.events("program-hangs"), "it is taken for hung")
    assert [event["name"] for event in hung] == ["weight-cache"]
    wait_for(lambda: warm.life("weight-cache") == "waiting", "it is ended")
    assert warm.pid("engine0") == engine
    stop(warm)


def test_a_cache_that_dies_while_the_engine_starts_takes_it_along(warm: WarmService) -> None:
    warm.behave(ready_after=3600)
    warm.start()
    wait_for(lambda: warm.life("engine0") == "starting", "the engine starts")
    wait_for(lambda: len(warm.lives()) == 2, "it has begun")
    leader = next(program["pid"] for program in warm.recorded()["programs"] if program["name"] == "weight-cache")
    os.kill(leader, signal.SIGKILL)
    warm.behave()
    warm.wait_state("ready")
    assert warm.lives() == [*WARM, *WARM]
    assert [event["name"] for event in warm.events("program-died")] == ["weight-cache"], "which is not held against the engine"
    stop(warm)


def test_a_cache_that_an_engine_cannot_map_is_started_again_with_it(warm: WarmService) -> None:
    warm.started()
    cache, old = warm.pid("weight-cache"), warm.pid("engine0")
    warm.behave(cannot_map=True)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: [event for event in warm.events("program-died") if event["code"] == "weight-cache-mismatch"], "the engine cannot map them")
    warm.behave()
    engine_again(warm, old)
    assert warm.pid("weight-cache") != cache
    stop(warm)


def test_a_cache_that_is_given_up_lets_the_engine_read_its_weights_itself(warm: WarmService) -> None:
    warm.started(RESTART_LIMIT=1)
    old = warm.pid("engine0")
    warm.behave(cache_dies_with="RuntimeError: NCCL error in: somewhere")
    os.kill(warm.pid("weight-cache"), signal.SIGKILL)
    wait_for(lambda: warm.life("weight-cache") == "waiting", "the cache waits for the engine's end")
    os.kill(old, signal.SIGKILL)
    engine_again(warm, old)
    assert warm.lives()[-1] == "engine begins to read its weights"
    status = warm.wait_state("degraded")
    assert any("NCCL" in problem["message"] for problem in status["problems"])
    stop(warm)


def test_a_cache_that_ignores_sigterm_is_killed(warm: WarmService) -> None:
    warm.started()
    leader, ranks = warm.pid("weight-cache"), warm.ranks()
    os.kill(leader, signal.SIGSTOP)
    warm.signal(signal.SIGTERM)
    warm.signal(signal.SIGINT)
    assert warm.ended()[0] == 0
    assert stopped_clean(warm)
    assert not warm.traces_left(ranks)


def test_a_killed_supervisor_leaves_weights_that_the_next_start_ends(warm: WarmService) -> None:
    warm.started()
    ranks, leader = warm.ranks(), warm.pid("weight-cache")
    assert warm.process
    warm.process.kill()
    warm.process.communicate()
    assert all(Path(f"/proc/{pid}").exists() for pid in ranks)
    stale = warm.paths.weight_sockets / "vllm_weight_cache_of_another_gpu.sock"
    stale.touch()
    warm.started()
    assert not [status for pid in [leader, *ranks] if (status := living(pid))]
    assert warm.pid("weight-cache") != leader
    assert not stale.exists()
    assert not any(name.startswith("torch_") for name in warm.traces_left(ranks))
    stop(warm)
