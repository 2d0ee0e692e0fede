"""What goes into a bundle, part by part. A part is a function that yields members; what it raises costs the rest of that part alone."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import kernel_log, slurm
from qwen_fp8_ops.plan.situation import plan_here
from qwen_fp8_ops.preflight.checks import run_checks
from qwen_fp8_ops.preflight.finding import verdict
from qwen_fp8_ops.preflight.subject import Subject
from qwen_fp8_ops.report.bundle.case import Case, Member
from qwen_fp8_ops.report.bundle.files import listing_members, log_members, record_members
from qwen_fp8_ops.report.bundle.settings import environment_members, settings_members
from qwen_fp8_ops.report.bundle.versions import version_members
from qwen_fp8_ops.report.findings_text import render_findings
from qwen_fp8_ops.report.gpu_text import render_gpus
from qwen_fp8_ops.report.job import recorded_by
from qwen_fp8_ops.report.screen import Screen
from qwen_fp8_ops.report.status import collect, collect_for_gpus
from qwen_fp8_ops.report.text import problem_lines
from qwen_fp8_ops.slurm import allocation, queue
from qwen_fp8_ops.slurm.ask import ask

WIDTH = 120
KERNEL_LINES = rf"NVRM|NVSwitch|nvidia-|{kernel_log.XID}|{kernel_log.OUT_OF_MEMORY}|Hardware Error|AER:|blocked for more than"

EXPECTED = (OpsError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError, subprocess.SubprocessError)
"""What a part may fail with on a machine where anything may be broken, our own records too. A bundle is made because of such things."""


@dataclass(frozen=True)
class Part:
    """``about`` says in README.txt what its members are."""

    name: str
    about: str
    make: Callable[[Case], Iterator[Member]]

    def members(self, case: Case) -> list[Member]:
        """All that it could make; the last one tells why there are no more."""
        found: list[Member] = []
        try:
            for member in self.make(case):
                found.append(member)  # noqa: PERF402 - what it made before it failed is kept
        except EXPECTED as error:
            why = error.message if isinstance(error, OpsError) else f"{type(error).__name__}: {error}"
            name = f"failed/{self.name}.txt"
            found.append(Member(name, why + "\n", f"{self.name}: {why.splitlines()[0]} ({name})"))
        return found


def _doctor(case: Case) -> Iterator[Member]:
    findings = run_checks(Subject(plan_here(case.configuration, case.paths, case.environ), case.paths, case.environ))
    yield Member("doctor.txt", render_findings(findings, WIDTH) + "\n")
    yield Member("doctor.json", _json({"schema": 1, "verdict": verdict(findings), "findings": [finding.as_json() for finding in findings]}))


def _planned(case: Case) -> Iterator[Member]:
    yield Member("plan-now.json", _json(plan_here(case.configuration, case.paths, case.environ).as_json()))


def _status(case: Case) -> Iterator[Member]:
    yield Member("status.json", _json(collect(case.paths)))


def _gpus(case: Case) -> Iterator[Member]:
    found = collect_for_gpus(case.paths, case.environ)
    told = [found["error"], *found["problems"]]
    lines = [*render_gpus(found, Screen(WIDTH)), *(line for problem in told if problem for line in problem_lines(problem))]
    yield Member("gpus.txt", "\n".join(lines) + "\n")
    yield Member("gpus.json", _json(found))


def _slurm(case: Case) -> Iterator[Member]:
    """The job we are in, the one that the last start recorded, and those that the queue says are ours."""
    inside = allocation.current(case.environ)
    shown: set[str] = set()
    for job_id in (inside.job_id if inside else None, recorded_by(case.paths)):
        if job_id and job_id not in shown:
            shown.add(job_id)
            yield _job(job_id)
    if slurm.installed():
        for job in queue.our_jobs(_job_name(case)):
            if job.job_id not in shown:
                shown.add(job.job_id)
                yield _job(job.job_id)
    if not shown:
        yield Member("slurm/none.txt", f"This is no allocation, and {'SLURM knows no job of ours' if slurm.installed() else 'there is no SLURM here'}.\n")


def _job_name(case: Case) -> str:
    """A job that we submitted bears our mark whatever its name is, so wrong settings cost only the allocations made by hand."""
    try:
        return case.configuration.settings.slurm_job_name
    except OpsError:
        return Settings().slurm_job_name


def _job(job_id: str) -> Member:
    name = f"slurm/job-{job_id}.txt"
    try:
        return Member(name, ask(["scontrol", "--details", "show", "job", job_id]))
    except OpsError as error:
        return Member(name, error.message + "\n", f"job {job_id}: {error.message}")


def _kernel(case: Case) -> Iterator[Member]:
    found = kernel_log.read()
    if found.problem:
        yield Member("kernel.txt", found.problem + "\n", f"the kernel's log: {found.problem}")
        return
    lines = [line for line in found.lines if re.search(KERNEL_LINES, line)][-case.last_lines :]
    yield Member("kernel.txt", "\n".join(lines or ["Nothing of GPUs, of hardware errors or of memory that ran out."]) + "\n")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


PARTS: tuple[Part, ...] = (
    Part("settings", "config/: config.env without comments, and every setting with what gave it", settings_members),
    Part("environment", "environment.txt: the variables that the service, the engine and SLURM read", environment_members),
    Part("versions", "versions.txt, packages.txt: Python, packages, driver, CUDA, kernel, distribution", version_members),
    Part("doctor", "doctor.txt, doctor.json: what `qwen-fp8 doctor` finds", _doctor),
    Part("plan", "plan-now.json: what a start would do now (run/plan.json: what the last start did)", _planned),
    Part("status", "status.json: `qwen-fp8 status --json`", _status),
    Part("gpus", "gpus.txt, gpus.json: `qwen-fp8 gpus`", _gpus),
    Part("slurm", "slurm/: `scontrol --details show job` of our jobs", _slurm),
    Part("kernel", "kernel.txt: what the kernel says of GPUs (Xid), hardware errors and memory that ran out", _kernel),
    Part("records", "run/: plan, state, events, gate rules, as they stand; never the keys", record_members),
    Part("logs", "logs/: the end of each log", log_members),
    Part("listing", "files.txt: size, mode, owner and age of the run's files", listing_members),
)
