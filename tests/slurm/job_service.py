"""A service of stand-in programs that runs as a batch job of a real cluster."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from tests.service.harness import StandInService
from tests.slurm.cluster import Cluster
from tests.waiting import wait_for

STANDIN = Path(__file__).parent / "standin_job.py"
PATIENCE_SECONDS = 300.0


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Chat:
    """A request that runs while the test goes on; ``status`` is None while it has no answer."""

    seconds: float
    url: str
    status: int | None = None
    problem: str = ""
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()

    def _ask(self) -> None:
        request = urllib.request.Request(self.url, json.dumps({"seconds": self.seconds}).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                self.status = answer.status
        except urllib.error.HTTPError as error:
            with error:
                self.status = error.code
        except OSError as error:
            self.problem = str(error)

    def ended(self) -> int | None:
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()
        return self.status


class JobService(StandInService):
    def __init__(self, cluster: Cluster, home: Path, **settings: Any) -> None:
        small = {"SLURM_MEM": "1G", "SLURM_CPUS": 1, "SLURM_TIME": "1:00:00", "SLURM_EXTRA_ARGS": "--gres=gpu:4", "DRAIN_TIMEOUT": 60}
        super().__init__(home, **{"PORT": "auto", "MEDIA_PORT": "auto", **small, **settings})
        # An earlier start tells how long loading takes; without one a short wall time would be refused.
        self.paths.run.mkdir()
        self.paths.load_times.write_text(json.dumps({f"{home / 'model'} tp1": 2}))
        self.cluster = cluster
        self.job_id = ""

    def cli(self, *words: str) -> Said:
        """The command line, as typed on the login node."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setenv("QWEN_FP8_HOME", str(self.paths.home))
            code = run([*words])
        return Said(code, out.getvalue(), err.getvalue())

    def standin_line(self, home: Path) -> str:
        return "exec " + shlex.join([sys.executable, str(STANDIN), str(home), *(f"{key}={value}" for key, value in self.settings.items())])

    def submit(self, *words: str, **settings: Any) -> Said:
        self.settings |= settings
        texts = [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        said = self.cli("--profile", "demo", *texts, "submit", *words)
        self.job_id = next((word.strip(".,") for word in (said.out + said.err).split() if word.strip(".,").isdigit()), "")
        return said

    def submitted(self, **settings: Any) -> JobService:
        """Submitted, and ready."""
        said = self.submit("--wait", **settings)
        assert said.code == 0, said.out + said.err + self.log()
        return self

    def log(self) -> str:
        return "".join(file.read_text() for file in sorted(self.paths.logs.glob("slurm-*.log")))

    @property
    def endpoint(self) -> dict[str, Any]:
        return json.loads(self.paths.endpoint.read_text())

    @property
    def recorded(self) -> dict[str, Any]:
        return json.loads(self.paths.state.read_text()) if self.paths.state.exists() else {"state": "stopped"}

    def chat(self, seconds: float) -> Chat:
        """Our host is the node's: the cluster's nodes are namespaces of it."""
        chat = Chat(seconds, f"http://127.0.0.1:{self.endpoint['port']}/v1/chat/completions")
        if seconds:
            wait_for(lambda: self._in_flight() or chat.status, "the request runs")
        return chat

    def _in_flight(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.endpoint['port']}/service", timeout=30) as answer:
            return json.load(answer)["gate"]["in_flight"]

    def wait_job(self, *states: str, job_id: str = "") -> dict[str, str]:
        def look() -> dict[str, str] | None:
            job = self.cluster.job(job_id or self.job_id)
            return job if job["state"] in states else None

        found: dict[str, str] = wait_for(look, f"job {job_id or self.job_id} is {' or '.join(states)}", PATIENCE_SECONDS)
        return found

    def wait_recorded(self, *states: str) -> dict[str, Any]:
        wait_for(lambda: self.recorded["state"] in states, f"the service is {' or '.join(states)}", PATIENCE_SECONDS)
        return self.recorded

    def restarts(self) -> int:
        """How often SLURM has started the job again."""
        text = self.cluster.told("scontrol", "show", "job", self.job_id)
        return int(text.partition("Restarts=")[2].split(maxsplit=1)[0])

    def close(self) -> None:
        ids = self.cluster.run(["squeue", "-h", "-n", "qwen-vl-fp8", "-o", "%A|%Z"]).stdout.splitlines()
        ours = [line.partition("|")[0] for line in ids if line.partition("|")[2] == str(self.paths.home)]
        if ours:
            self.cluster.run(["scancel", *ours])
            wait_for(lambda: all(self.cluster.job(one)["state"] not in ("RUNNING", "COMPLETING", "PENDING") for one in ours), "the jobs are gone")
        super().close()
