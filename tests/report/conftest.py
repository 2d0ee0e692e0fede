from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.recorded_run import WORKER_TITLE, Run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    program = (
        f"import subprocess, sys\nworker = subprocess.Popen([{WORKER_TITLE!r}, '600'], executable='/bin/sleep')\n"
        "print(worker.pid, flush=True)\nsys.stdin.read()\nworker.kill()\nworker.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
        assert leader.stdin
        assert leader.stdout
        worker = int(leader.stdout.readline())
        try:
            yield Run(tmp_path, leader, worker)
        finally:
            leader.stdin.close()
