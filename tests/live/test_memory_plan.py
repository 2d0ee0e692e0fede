"""The plan foretells what the real engine then logs, and remembers what it logged."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.service import LiveService

pytestmark = pytest.mark.engine


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LiveService]:
    started = LiveService(tmp_path)
    yield started
    started.close()


TWO_RANKS = ["--set", "TENSOR_PARALLEL_SIZE=2", "--set", "MAX_MODEL_LEN=5000", "--set", "KV_CACHE_DTYPE=fp8"]
QUOTE_IN_PATH = pytest.mark.skipif("'" in sys.prefix, reason="torch's inductor, which two ranks use, cannot quote the path of its own headers")


@pytest.mark.parametrize("words", [pytest.param([], id="one rank"), pytest.param(TWO_RANKS, id="two ranks", marks=QUOTE_IN_PATH)])
def test_the_tokens_of_the_plan_are_those_of_the_engine(service: LiveService, words: list[str]) -> None:
    asked = ("plan", "--profile", "demo", *words, "--json")
    before = json.loads(service.run(*asked).stdout)
    assert (before["fits"], before["measured"]) == (True, None)
    service.start(*words)
    logged = service.status()["memory"]
    assert (logged["kv_cache_tokens"], logged["max_concurrency"]) == (before["kv_tokens"], before["max_concurrency"])
    # The service holds its memory now; the question is still the same one.
    after = json.loads(service.run(*asked).stdout)
    assert (after["kv_tokens"], after["measured"]["kv_cache_tokens"]) == (before["kv_tokens"], logged["kv_cache_tokens"])
    assert "--safetensors-load-strategy=lazy" in (service.home / "run/plan.json").read_text()
    assert service.run("stop").returncode == 0
