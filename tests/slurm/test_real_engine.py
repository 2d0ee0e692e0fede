"""The whole way once, with the real vLLM on the CPU: submitted, waited for, spoken to, and stopped, by the commands as they are."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from tests.live.service import LiveService
from tests.slurm.cluster import Cluster
from tests.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.engine, pytest.mark.timeout(900)]


def test_submit_wait_chat_cancel(cluster: Cluster, tmp_path: Path) -> None:
    service = LiveService(tmp_path)
    service.env |= {"SLURM_CONF": str(cluster.conf), "PATH": os.environ["PATH"]}
    small = ["--profile", "demo", "--set", "SLURM_MEM=4G", "--set", "SLURM_CPUS=2", "--set", "SLURM_TIME=1:00:00"]
    try:
        submitted = service.run(*small, "submit", "--wait", "--json", timeout=800)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr + "".join(log.read_text() for log in (service.home / "logs").glob("slurm-*"))
        told = json.loads(submitted.stdout)
        job_id, endpoint = told["job"]["job_id"], told["endpoint"]
        assert told["service"]["state"] == "ready" and endpoint["host"] in cluster.nodes
        body = {"model": endpoint["model"], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        # The node's loopback is this machine's: there is no tunnel to dig.
        request = urllib.request.Request(f"{endpoint['url']}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            assert json.load(answer)["choices"][0]["message"]
            assert answer.headers["X-Service-Ends-At"] == endpoint["ends_at"] is not None
        pids = [entry["pid"] for entry in json.loads((service.home / "run/state.json").read_text())["programs"] if entry["pid"]]
        stopped = service.run("jobs", "stop", job_id, timeout=300)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert "every process is gone" in stopped.stdout
        assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)
        wait_for(lambda: cluster.job(job_id)["state"] == "COMPLETED", "the job has ended well")
    finally:
        cluster.run(["scancel", "--name=qwen-vl-fp8"])
