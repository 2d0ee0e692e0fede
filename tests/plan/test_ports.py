"""PORT=auto: a free port, told as a number, and never the same one twice on a host."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import Configuration, load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import lock, port_claim
from qwen_fp8_ops.outside.files import write_json
from qwen_fp8_ops.outside.process import identify
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.plan.ports import with_ports
from qwen_fp8_ops.plan.situation import plan_here

AUTO = ("PORT=auto", "MEDIA_PORT=AUTO")
OTHER_PROCESS = """
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.plan.ports import with_ports
found = with_ports(load(overrides=["PORT=auto", "MEDIA_PORT=auto"]), seed="same", keep={}).settings
print(found.port, found.media_port, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def no_claims() -> Iterator[None]:
    yield
    for port in list(port_claim._held):
        port_claim.give_back(port)


def resolved(*overrides: str, seed: str = "seed") -> Configuration:
    return with_ports(load(overrides=overrides), seed=seed, keep={})


def test_numbers_are_kept() -> None:
    configuration = load(overrides=["PORT=9001"])
    assert with_ports(configuration, seed="", keep={"PORT": 1}) is configuration


def test_both_are_chosen_outside_of_the_ephemeral_range_and_recorded_as_numbers(tmp_path: Path) -> None:
    found = resolved(*AUTO)
    ports = {found.settings.port, found.settings.media_port}
    assert len(ports) == 2 and ports <= set(port_claim.outside_ephemeral())
    plan = make_plan(found, RunPaths(tmp_path))
    assert (plan.engines[0].port, plan.media.port) == (found.settings.port, found.settings.media_port)
    assert f"--port={found.settings.port}" in plan.engines[0].argv
    assert plan.texts["PORT"] == str(found.settings.port), "whoever reads the plan back gets the same ports"


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    first = resolved("PORT=auto").settings.port
    port_claim.give_back(first)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first))
        other.listen()
        assert resolved("PORT=auto").settings.port != first


def test_the_other_port_is_passed_over() -> None:
    first = resolved("PORT=auto").settings.port
    port_claim.give_back(first)
    assert resolved("PORT=auto", f"MEDIA_PORT={first}").settings.port != first


def test_services_that_start_at_the_same_moment_get_different_ports() -> None:
    # All of them look before any of them listens.
    others = [subprocess.Popen([sys.executable, "-c", OTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        ports = [int(port) for other in others for port in (other.stdout.readline().split() if other.stdout else [])]
    finally:
        for other in others:
            other.communicate("\n", timeout=60)
    assert len(ports) == 6 == len(set(ports))


def test_a_claim_ends_with_its_process() -> None:
    program = "from qwen_fp8_ops.outside.port_claim import claim; print(claim(20001))"
    said = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stdout for _ in range(2)]
    assert said == ["True\n", "True\n"]


def test_a_restart_keeps_its_ports() -> None:
    found = with_ports(load(overrides=AUTO), seed="", keep={"PORT": 12001, "MEDIA_PORT": 12002})
    assert (found.settings.port, found.settings.media_port) == (12001, 12002)


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_claim, "claim", lambda port: False)
    with pytest.raises(OpsError, match=r"No port of 127\.0\.0\.1 is free"):
        resolved("PORT=auto")


@pytest.mark.parametrize(
    ("text", "found"),
    [("32768\t60999\n", range(10_000, 32768)), ("1024 20000", range(20001, 65536)), ("1024 65535", range(1024, 65536)), ("", range(10_000, 32768))],
)
def test_the_range_of_the_kernel_is_avoided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, found: range) -> None:
    (tmp_path / "range").write_text(text)
    monkeypatch.setattr(port_claim, "EPHEMERAL", tmp_path / "range")
    assert port_claim.outside_ephemeral() == found


def test_a_running_service_of_the_folder_has_its_ports_already(tmp_path: Path) -> None:
    """What `restart` plans with: its ports are in use, by itself."""
    paths = RunPaths(tmp_path)
    paths.run.mkdir()
    write_json(paths.plan, make_plan(load(overrides=["PORT=12001", "MEDIA_PORT=12002"]), paths).as_json())
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        supervisor = identify(holder.pid)
        assert supervisor and lock.acquire(paths.lock, supervisor) is None
        again = plan_here(load(overrides=AUTO), paths, {})
    finally:
        holder.communicate(b"\n", timeout=60)
    assert (again.engines[0].port, again.media.port) == (12001, 12002)
    assert plan_here(load(overrides=AUTO), paths, {}).engines[0].port != 12001, "it runs no more"
