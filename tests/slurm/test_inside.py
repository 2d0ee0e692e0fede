"""What a process inside of a real allocation is told of it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

CHECKOUT = Path(__file__).parent.parent.parent
TELL = "import json, os; from dataclasses import asdict; from qwen_fp8_ops.slurm.allocation import current; found = current(os.environ); print('@', json.dumps(asdict(found)) if found else 'null')"
ASKED = ["--ntasks=1", "--gres=gpu:2", "--mem=3G", "--cpus-per-task=4", "--time=30"]


def inside(cluster: Cluster, *words: str) -> Any:
    done = cluster.run(words, environ={"PYTHONPATH": str(CHECKOUT)})
    lines = [line for line in done.stdout.splitlines() if line.startswith("@ ")]
    assert len(lines) == 1, done.stdout + done.stderr
    return json.loads(lines[0][2:])


def test_in_a_step(cluster: Cluster) -> None:
    found = inside(cluster, "srun", *ASKED, sys.executable, "-c", TELL)
    assert (found["gpus"], len(found["gpu_indices"]), found["cpus"], found["memory_bytes"]) == (2, 2, 4, 3 << 30)
    assert (found["partition"], found["on_node"], found["managed"], found["batch"], found["problem"]) == ("main", True, True, False, "")
    assert found["node"] in cluster.nodes and found["ends_at"]


def test_in_a_batch_script(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-c', TELL])}\n")
    done = cluster.run(["sbatch", "--wait", *ASKED, f"--output={tmp_path}/out", str(script)], environ={"PYTHONPATH": str(CHECKOUT)})
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out").read_text().partition("@ ")[2])
    assert (found["gpus"], len(found["gpu_indices"]), found["cpus"], found["memory_bytes"]) == (2, 2, 4, 3 << 30)
    assert (found["batch"], found["managed"], found["on_node"]) == (True, True, True)


def test_in_sallocs_own_shell_on_the_login_node(cluster: Cluster) -> None:
    found = inside(cluster, "salloc", *ASKED, sys.executable, "-c", TELL)
    assert (found["gpus"], len(found["gpu_indices"]), found["cpus"], found["memory_bytes"]) == (2, 2, 4, 3 << 30)
    assert (found["on_node"], found["managed"], found["batch"]) == (False, False, False)


def test_in_a_shell_on_the_node_that_slurm_did_not_start(cluster: Cluster) -> None:
    """As by ssh: nothing of SLURM in the environment; the node's only job of this user is the one."""
    bare = ["env", "-i", f"SLURM_CONF={cluster.conf}", f"PATH={cluster.environ['PATH']}", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", TELL]
    found = inside(cluster, "srun", *ASKED, *bare)
    assert (found["gpus"], len(found["gpu_indices"]), found["on_node"], found["managed"]) == (2, 2, True, False)
    assert found["node"] in cluster.nodes


def test_outside(cluster: Cluster) -> None:
    assert inside(cluster, sys.executable, "-c", TELL) is None
