"""The one object that knows every file of a run.

    home/                 the project's folder, or QWEN_FP8_HOME
    ├── config.env
    ├── logs/  service.log  media.log  supervisor.log  weight-cache.log  audit.jsonl  slurm-JOB.log  stacks-PROGRAM.log
    └── run/   plan.json  state.json  events.jsonl  lock  endpoint.json  gate.json  keys  load-times.json  calibration.json
              job.sbatch  poison.json  in-flight/  tmp -> /tmp/qwen-fp8-.../, temporary files of the programs
    /tmp/qfp8-1a2b3c4d/   sockets of the weight cache: their paths must be short, and on a disk of this machine
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RunPaths:
    home: Path

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def service_log(self) -> Path:
        """What the engine prints; ``service.log.N`` holds earlier attempts, 1 the latest of them."""
        return self.logs / "service.log"

    @property
    def media_log(self) -> Path:
        return self.logs / "media.log"

    @property
    def supervisor_log(self) -> Path:
        """What a detached supervisor says; in the foreground it says it on the terminal."""
        return self.logs / "supervisor.log"

    def stacks(self, program: str) -> Path:
        """Where a program hung when it was restarted for that; ``.N`` are earlier ones."""
        return self.logs / f"stacks-{program}.log"

    @property
    def audit(self) -> Path:
        return self.logs / "audit.jsonl"

    @property
    def plan(self) -> Path:
        return self.run / "plan.json"

    @property
    def next_plan(self) -> Path:
        """The plan that a running supervisor takes up when ``restart`` asks it to."""
        return self.run / "next-plan.json"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def events(self) -> Path:
        return self.run / "events.jsonl"

    @property
    def load_times(self) -> Path:
        """How long earlier starts took until ready, by what they loaded: the source of the ETA."""
        return self.run / "load-times.json"

    @property
    def calibration(self) -> Path:
        """What memory earlier starts took, by host and layout: the memory plan's overhead."""
        return self.run / "calibration.json"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def endpoint(self) -> Path:
        return self.run / "endpoint.json"

    @property
    def gate(self) -> Path:
        """What the supervisor tells the gate: draining or not, end of the allocation. One writer, the supervisor."""
        return self.run / "gate.json"

    @property
    def poison(self) -> Path:
        """The requests that ran at the latest crashes, and those that are refused for it. People may edit it."""
        return self.run / "poison.json"

    @property
    def in_flight(self) -> Path:
        """One file for each process of the gate: the requests that it has passed on and that run just now."""
        return self.run / "in-flight"

    @property
    def weight_sockets(self) -> Path:
        """Where the weight cache listens, a socket for each rank; no other run and no other user has the same folder. With vLLM's names
        for them, of up to 87 letters, their paths stay within 107 bytes (unix(7)).
        """
        whose = hashlib.sha256(f"{os.getuid()} {self.run}".encode()).hexdigest()[:8]
        return Path("/tmp") / f"qfp8-{whose}"  # noqa: S108 - made with mode 0700, and looked at before

    @property
    def weight_cache_log(self) -> Path:
        return self.logs / "weight-cache.log"

    @property
    def job_script(self) -> Path:
        """What was submitted to SLURM last; a chained job is submitted from it again."""
        return self.run / "job.sbatch"

    def job_log(self, job_id: str) -> Path:
        """What a submitted job printed: the supervisor's words, and SLURM's own."""
        return self.logs / f"slurm-{job_id}.log"

    @property
    def keys(self) -> Path:
        """The key that this machine's own tools use, made new at each start; mode 0600."""
        return self.run / "keys"


def find_home(environ: Mapping[str, str], folder: Path) -> Path:
    """The folder that holds config.env, logs/ and run/.

    QWEN_FP8_HOME if set; else the checkout this package lies in (beside the wrappers); else ``folder``, the current one.
    """
    if environ.get("QWEN_FP8_HOME"):
        return Path(os.path.abspath(os.path.expanduser(environ["QWEN_FP8_HOME"])))
    checkout = PACKAGE.parent
    return checkout if (checkout / "start_service.sh").exists() else folder
