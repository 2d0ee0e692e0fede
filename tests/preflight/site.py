"""A project folder in which a start would go ahead, and ways to spoil it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.preflight.checks import Subject, run_checks
from qwen_fp8_ops.preflight.finding import Finding
from tests.ports import free_port
from tests.weights.shards import make_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
DOCTOR = (sys.executable, "-m", "qwen_fp8_ops", "doctor", "--json", "--profile", "demo")


class Site:
    """Its name has a space and a quote, because users have such. ``home`` is the project's folder, ``user`` the user's home."""

    def __init__(self, folder: Path) -> None:
        self.home, self.user = folder / "it's a project", folder / "user"
        self.paths = RunPaths(self.home)
        self.user.mkdir(parents=True)
        for name in ("logs", "run", "media", "model"):
            (self.home / name).mkdir(parents=True)
        make_checkpoint(self.home / "model", 1)
        self.settings: dict[str, Any] = {"MODEL_ID": "stand/in", "MODEL_PATH": "model", "PORT": free_port(), "MEDIA_PORT": free_port()}

    def texts(self, settings: Mapping[str, Any]) -> list[str]:
        return [f"{key}={value}" for key, value in {**self.settings, **settings}.items()]

    def subject(self, environ: Mapping[str, str] | None = None, **settings: Any) -> Subject:
        plan = make_plan(load(profiles=["demo"], overrides=self.texts(settings)), self.paths)
        return Subject(plan, self.paths, {"HOME": str(self.user)} if environ is None else environ)

    def findings(self, environ: Mapping[str, str] | None = None, **settings: Any) -> dict[str, Finding]:
        return {finding.code: finding for finding in run_checks(self.subject(environ, **settings))}

    def doctor(
        self, before: Sequence[str] = (), environ: Mapping[str, str] | None = None, limits: Mapping[int, int] | None = None, **settings: Any
    ) -> dict[str, Finding]:
        """What `qwen-fp8 doctor` finds as a process of its own.

        Args:
            before: words in front of the command, such as `unshare --mount`.
            limits: resource limits, hard and soft alike.
        """
        words = [word for text in self.texts(settings) for word in ("--set", text)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("QWEN_FP8_", "CUDA_", "SLURM_"))}
        whole = {**kept, "QWEN_FP8_HOME": str(self.home), "HOME": str(self.user), "PYTHONPATH": str(REPOSITORY), **(environ or {})}
        if limits:
            before = [*before, sys.executable, "-c", LIMITED, json.dumps(limits)]
        done = subprocess.run([*before, *DOCTOR, *words], cwd=self.home, env=whole, capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 4), done.stderr
        return {found["code"]: Finding(**found) for found in json.loads(done.stdout)["findings"]}

    def keys(self, text: str, mode: int = 0o600) -> str:
        (self.home / "keys file").write_text(text)
        (self.home / "keys file").chmod(mode)
        return "keys file"


LIMITED = "import json, os, resource, sys\nfor kind, value in json.loads(sys.argv[1]).items(): resource.setrlimit(int(kind), (value, value))\nos.execv(sys.argv[2], sys.argv[2:])"


@contextmanager
def running(*argv: str, environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    whole = {**os.environ, **(environ or {})}
    with subprocess.Popen(
        [sys.executable, *argv], cwd=REPOSITORY, env=whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def taken(port: int, environ: Mapping[str, str] | None = None) -> Iterator[int]:
    """Another process listens there and answers nothing; its pid."""
    program = f"import socket, sys\nwith socket.create_server(('127.0.0.1', {port})): print('up', flush=True); sys.stdin.read()"
    with running("-c", program, environ=environ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        yield process.pid


def on_tmpfs(folder: Path, size: str) -> list[str]:
    """Words in front of a command that runs it where ``folder`` is a file system of that size, seen by nobody else."""
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"', "sh", size, str(folder)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    if subprocess.run([*mount, "true"], capture_output=True, timeout=60).returncode != 0:
        pytest.skip("nothing can be mounted here")
    return mount
