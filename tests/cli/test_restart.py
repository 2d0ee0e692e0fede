"""``restart``: what is refused before anything stops, and what the start's own words have to do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.service import detach
from qwen_fp8_ops.service.changeover import Request
from tests.service.warm_service import WarmService


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WarmService]:
    stand_in = WarmService(tmp_path / "service")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN_FP8_HOME", str(stand_in.paths.home))
    yield stand_in
    stand_in.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the supervisor would be asked for; it is not, for the plan of the command line has no stand-ins in it."""
    found: list[Request] = []

    def restart(request: Request, *_: Any) -> dict[str, Any]:
        found.append(request)
        return {"ready_seconds": 1.0, "url": "http://h:1/v1", "model": "m", "media": {"url": "http://h:2", "root": "/m"}}

    monkeypatch.setattr(detach, "restart", restart)
    return found


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_the_codes_that_the_start_overruled_are_overruled_again(service: WarmService, asked: list[Request], capsys: pytest.CaptureFixture[str]) -> None:
    service.started(MAX_NUM_SEQS=2)
    assert json.loads(service.paths.plan.read_text())["invocation"]["forced"] == ["weight-cache"]
    assert run(["restart", "--engine", "--set", "MAX_NUM_SEQS=3", "--force", "body-limit"]) == ExitCode.DONE
    assert "(forced: --force weight-cache)" in told(capsys)
    [request] = asked
    assert request.keep_weights
    assert request.plan.settings.max_num_seqs == 3
    assert request.plan.invocation.forced == ("weight-cache", "body-limit")
    assert run(["restart"]) == ExitCode.DONE
    assert not asked[-1].keep_weights
    old = service.pid("engine0")
    refused(service, capsys)
    assert service.pid("engine0") == old
    assert len(asked) == 2


def refused(service: WarmService, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of this reaches the supervisor."""
    assert run(["restart", "--engine", "--set", "DTYPE=float16"]) == ExitCode.USAGE
    assert "DTYPE=float16 (--set; now bfloat16): the weights in GPU memory would be others" in told(capsys)
    assert run(["restart", "--engine", "--set", "MEDIA_PORT=1025", "--set", "SLURM_MEM=1G", "--json"]) == ExitCode.USAGE
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "beyond-engine"
    assert error["fix"].splitlines() == ["qwen-fp8 restart --set MEDIA_PORT=1025", "qwen-fp8 submit --set SLURM_MEM=1G", "Or leave them as they are."]
    assert run(["restart", "--engine", "--set", "MAX_MODEL_LEN=300000"]) == ExitCode.PREFLIGHT, "the plan says no"
    assert "It would not fit in memory; vLLM would end with" in told(capsys)


def test_without_a_service_there_is_nothing_to_restart(service: WarmService, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["restart", "--engine"]) == ExitCode.NOT_RUNNING
    assert "The service is not running" in told(capsys)
