"""The allocation this process runs in, and the line that asks for one.

Where the facts come from: the environment tells the job and, in a batch script or a step, the GPUs of it; the controller
(``scontrol -d show job``) tells the rest. salloc's own shell has no GPU variables, and a shell that came by ssh has none at all:
there the job is found by the process's control group, or as our only running job on this node.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, process, slurm
from qwen_fp8_ops.slurm import parse
from qwen_fp8_ops.slurm.ask import ask
from qwen_fp8_ops.slurm.job_details import JobDetails, job_details

CONTROL_GROUP = re.compile(r"/job_(\d+)(?:/|$)", re.MULTILINE)
GUESS_SECONDS = 4.0
"""For a question whose answer is most often no; a client without a configuration asks the name servers for one, at length."""


@dataclass(frozen=True)
class Allocation:
    """What SLURM granted us; None is what it does not tell.

    ``node`` is the node we are meant for; ``on_node`` is False in a salloc shell that stayed on the login node. ``gpus``,
    ``cpus`` and ``memory_bytes`` are of this node, or of this step of the job. ``gpu_indices`` are the node's own numbers.
    ``ends_at`` is ISO 8601 in UTC. ``managed``: SLURM itself started us, as the batch script or a step: its SIGTERM is followed by
    SIGKILL. ``batch``: we are the batch script, which can be requeued. ``problem``: why the controller told nothing, in one line.
    """

    job_id: str
    partition: str | None
    node: str | None
    gpus: int | None
    ends_at: str | None
    gpu_indices: tuple[int, ...] = ()
    cpus: int | None = None
    memory_bytes: int | None = None
    nodes: tuple[str, ...] = ()
    on_node: bool = True
    managed: bool = False
    batch: bool = False
    problem: str = ""

    @property
    def seconds_left(self) -> float | None:
        return -clock.seconds_since(self.ends_at) if self.ends_at else None

    def as_json(self) -> dict[str, Any]:
        """What state.json records."""
        return {key: value for key, value in asdict(self).items() if key in ("job_id", "partition", "node", "gpus", "ends_at")}


def current(environ: Mapping[str, str]) -> Allocation | None:
    """None outside of an allocation. Costs one question to the controller inside of one, which may wait 9 s for a dead one."""
    job_id = environ.get("SLURM_JOB_ID") or _adopting_job() or _only_job_here()
    if not job_id:
        return None
    details, problem = None, ""
    try:
        details = job_details(ask(["scontrol", "--details", "show", "job", job_id]))
    except OpsError as error:
        problem = error.message
    return _allocation(job_id, environ, details, problem)


def _allocation(job_id: str, environ: Mapping[str, str], details: JobDetails | None, problem: str) -> Allocation:
    here = _short(process.host_name())
    nodes = details.nodes if details and details.nodes else parse.hosts(environ.get("SLURM_JOB_NODELIST"))
    node = environ.get("SLURMD_NODENAME") or next((name for name in nodes if _short(name) == here), nodes[0] if nodes else None)
    granted = parse.indices(environ.get("SLURM_STEP_GPUS")) or parse.indices(environ.get("SLURM_JOB_GPUS"))
    granted = granted or (details.gpu_indices.get(node or "", ()) if details else ())
    gpus = parse.whole(environ.get("SLURM_GPUS_ON_NODE"))
    if gpus is None:
        gpus = len(granted) or (details.gpus if details and len(nodes) == 1 else None)
    return Allocation(
        job_id=job_id,
        partition=environ.get("SLURM_JOB_PARTITION") or (details.partition if details else None),
        node=node,
        gpus=gpus,
        ends_at=(details.ends_at if details else None) or _end_in(environ),
        gpu_indices=granted,
        cpus=parse.whole(environ.get("SLURM_CPUS_ON_NODE")) or (details.cpus if details and len(nodes) == 1 else None),
        memory_bytes=parse.memory_bytes(environ.get("SLURM_MEM_PER_NODE")) or (details.memory_bytes if details and len(nodes) == 1 else None),
        nodes=nodes,
        on_node=bool(environ.get("SLURMD_NODENAME")) or not nodes or here in map(_short, nodes),
        managed=bool(environ.get("SLURMD_NODENAME")),
        batch=bool(environ.get("SLURMD_NODENAME")) and "SLURM_STEP_ID" not in environ,
        problem=problem,
    )


def end_of(job_id: str) -> str | None:
    """When the job ends, which an administrator or ``scontrol update`` may have moved; None when it has no end.

    Raises:
        OpsError: the controller does not tell.
    """
    told = ask(["squeue", "--noheader", f"--jobs={job_id}", "--format=%e"]).strip()
    if not told:
        raise OpsError(f"squeue says nothing of job {job_id}", code="slurm-silent")
    return parse.moment(told)


def _adopting_job() -> str | None:
    """The job whose control group we are in: ssh into a node of a site with pam_slurm_adopt."""
    try:
        groups = (process.PROC / "self/cgroup").read_text()
    except OSError:
        return None
    found = CONTROL_GROUP.search(groups) if "slurm" in groups else None
    return found[1] if found else None


def _only_job_here() -> str | None:
    """Our job that runs on this node, when there is exactly one. Only a node that runs jobs is worth the question."""
    if not slurm.installed() or not any(_is_slurmd(process.command_line(pid)) for pid in process.all_pids()):
        return None
    here = _short(process.host_name())
    words = ["squeue", "--noheader", f"--user={os.geteuid()}", f"--nodelist={here}", "--states=RUNNING", "--format=%A"]
    reply = slurm.run(words, timeout=GUESS_SECONDS)
    found = set(reply.stdout.split()) if reply.ok else set()
    return found.pop() if len(found) == 1 else None


def _is_slurmd(command: str) -> bool:
    return command.partition(" ")[0].endswith("slurmd")


def _end_in(environ: Mapping[str, str]) -> str | None:
    """SLURM_JOB_END_TIME, seconds since 1970, which 22.05 does not have and later releases do; as of the job's start."""
    stamp = parse.whole(environ.get("SLURM_JOB_END_TIME"))
    return clock.iso(stamp) if stamp else None


def _short(host: str) -> str:
    return host.partition(".")[0]


def salloc_line(settings: Settings) -> str:
    """The command that gets an allocation of the size config.env asks for."""
    words = ["salloc"]
    if settings.slurm_partition:
        words += ["-p", settings.slurm_partition]
    words.append(f"--job-name={settings.slurm_job_name}")
    if settings.gpu_count:
        words.append(f"--gres=gpu:{settings.gpu_count}")
    words += [
        f"--mem={settings.slurm_mem}",
        f"--cpus-per-task={settings.slurm_cpus}",
        f"--time={settings.slurm_time}",
        *settings.slurm_extra_args,
    ]
    return shlex.join(words)
