"""The ports that tests are given."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ports
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
# Another process that has only one port to choose from.
OTHER = "import sys; from tests import ports; ports.CANDIDATES = [int(sys.argv[1])]; print(ports.free_port())"


def test_no_port_is_one_that_the_kernel_may_give_to_a_connection() -> None:
    first, last = ports.EPHEMERAL
    given = [free_port() for _ in range(50)]
    assert all(port >= 10_000 and not first <= port <= last for port in given)
    assert len(set(given)) == 50


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    other = subprocess.run([sys.executable, "-c", OTHER, str(port)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert f"no free port in [{port}]" in other.stderr
    monkeypatch.setattr(ports, "CANDIDATES", [port])
    with pytest.raises(RuntimeError, match="no free port"):
        free_port()


def test_a_port_is_given_again_when_its_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    given = subprocess.run(
        [sys.executable, "-c", "from tests.ports import free_port; print(free_port())"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    monkeypatch.setattr(ports, "CANDIDATES", [int(given.stdout)])
    assert free_port() == int(given.stdout)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
def test_no_port_is_one_that_somebody_has(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((address, 0)) as taken:
        monkeypatch.setattr(ports, "CANDIDATES", [taken.getsockname()[1]])
        with pytest.raises(RuntimeError, match="no free port"):
            free_port()
