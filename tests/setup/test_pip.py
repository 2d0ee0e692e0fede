"""What pip's failures become, and what keeps it inside .venv."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from tests.setup.wheels import pip_environment
from venv_setup.child import Outcome
from venv_setup.pip import Pip, diagnose


@pytest.mark.parametrize(
    ("output", "why", "fix"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space", "df -h"),
        ("OSError: [Errno 122] Disk quota exceeded: '/x'", "no space", "df -h"),
        (
            "ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407'))\nERROR: No matching distribution found for x",
            "proxy",
            "HTTPS_PROXY",
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))\nERROR: No matching distribution found for x", "certificate", "PIP_CERT"),
        (
            "NewConnectionError(': [Errno -3] Temporary failure in name resolution')\nERROR: No matching distribution found for x",
            "cannot be reached",
            "login node",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "cannot be written", "ls -ld"),
        ("ERROR: Could not find a version that satisfies x (from versions: none)\nERROR: No matching distribution found for x", "knows nothing", "index-url"),
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "does not exist for this Python", "x86_64"),
    ],
)
def test_a_known_failure_has_a_remedy(output: str, why: str, fix: str) -> None:
    words, remedy = diagnose(Outcome(1, output))
    assert why in words
    assert fix in remedy


def test_a_kill_is_told_as_such() -> None:
    assert diagnose(Outcome(-9, ""))[0] == "it was killed by signal 9"


def test_an_unknown_failure_is_not_guessed_at() -> None:
    assert diagnose(Outcome(1, "the moon is full")) == ("", "")


@pytest.fixture
def pip(tmp_path: Path) -> Pip:
    nobody = "http://127.0.0.1:9/simple"  # the discard port: refused at once
    environ = pip_environment(os.environ, nobody, nobody) | {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere"), "PYTHONPATH": "/nowhere"}
    return Pip(Path(sys.executable), tmp_path, tmp_path / "log", tmp_path, environ, lambda text: None)


def test_the_real_pip_without_an_index(pip: Pip) -> None:
    with pytest.raises(OpsError) as caught:
        pip.install("--dry-run", "--retries", "1", "no-such-package==1")
    assert "the package index cannot be reached" in caught.value.message
    assert "no-such-package" in caught.value.message, "the end of pip's own words is shown"
    assert "global.index-url" in caught.value.fix
    assert "All that pip said is in log" in caught.value.fix
    log = (pip.root / "log").read_text()
    assert log.startswith(f"$ {shlex.quote(sys.executable)} -I -m pip install")
    assert "no-such-package" in log


def test_a_sites_pip_settings_do_not_lead_out_of_the_environment(pip: Pip) -> None:
    listed = pip("config", "list").output
    assert ":env:.user='0'" in listed
    assert "target" not in listed
