"""What is installed and what it runs on: Python, packages, driver, CUDA, kernel, distribution."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions

import qwen_fp8_ops
from qwen_fp8_ops.config.paths import PACKAGE
from qwen_fp8_ops.engine import version as engine
from qwen_fp8_ops.outside import clock, gpus, process
from qwen_fp8_ops.outside.packages import torch_build
from qwen_fp8_ops.report.bundle.case import Case, Member

GIT_SECONDS = 5.0


def version_members(case: Case) -> Iterator[Member]:
    driver, torch = gpus.snapshot(), torch_build()
    facts = {
        "written at": clock.now(),
        "host": process.host_name(),
        "user": f"uid {os.geteuid()}",
        "qwen-fp8": qwen_fp8_ops.__version__,
        "checkout": _commit(),
        "run folder": str(case.paths.home),
        "python": f"{platform.python_version()} ({sys.executable})",
        "vllm": engine.installed() or f"not installed (planned for: {engine.PLANNED})",
        "torch": f"{torch.version}, built with CUDA {torch.cuda or 'none'}" if torch else "not installed",
        "driver": driver.driver_version or f"none ({driver.problem})",
        "driver's newest CUDA": driver.cuda_version or "not told",
        "GPUs read by": driver.source or "nobody",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(),
        "C library": " ".join(platform.libc_ver()).strip() or "not told",
        "CPUs": f"{os.cpu_count()}, usable {len(os.sched_getaffinity(0))}",
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
    width = max(map(len, facts))
    yield Member("versions.txt", "".join(f"{name:<{width}}  {text}\n" for name, text in facts.items()))
    names = {found.name: found.version for found in distributions() if found.name}  # the first on the path is the one that is imported; it comes first
    yield Member("packages.txt", "".join(f"{name}=={names[name]}\n" for name in sorted(names, key=str.lower)))


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "not told"


def _commit() -> str:
    """As `git describe --always --dirty`; an installed package has no checkout."""
    argv = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "not told"
    return done.stdout.strip() if done.returncode == 0 else "none"
