"""SLURM's own programs, from Debian's packages: installed when they are missing, their services never started."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
POLICY = Path("/usr/sbin/policy-rc.d")
"""Asked by every package's installation whether its service may start; 101 is no."""
LINE_SECONDS = 300


def why_not_here() -> str:
    """Why no cluster can be brought up on this machine; empty when one can be."""
    if os.geteuid() != 0:
        return "a SLURM cluster of our own needs root"
    if not Path("/etc/debian_version").exists() or not shutil.which("apt-get"):
        return "a SLURM cluster of our own needs Debian's packages"
    if subprocess.run(["unshare", "--uts", "--mount", "hostname", "trial"], capture_output=True).returncode:
        return "a SLURM cluster of our own needs the right to make namespaces"
    return _install()


def _install() -> str:
    if not (missing := [name for name in PACKAGES if not _installed(name)]):
        return ""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    line = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        for words in (line, ["apt-get", "update", "-q"], line):  # old package lists are a reason to fail, once
            done = subprocess.run(words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LINE_SECONDS)
            if words is line and done.returncode == 0:
                return ""
    except subprocess.TimeoutExpired as late:
        return f"{' '.join(late.cmd)} took more than {LINE_SECONDS} s"
    finally:
        if ours:
            POLICY.unlink()
    return f"{' '.join(line)} failed: {done.stderr.strip()[-200:]}"


def _installed(name: str) -> bool:
    found = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name], capture_output=True, text=True)
    return found.stdout.startswith("ii")
