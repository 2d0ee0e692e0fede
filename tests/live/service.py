"""The real service for tests: the wrappers a user calls, real vLLM on the CPU, the demo checkpoint, free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 900
"""Half a minute on two idle cores; a machine that trains a model meanwhile takes ten times as long."""


class LiveService:
    """One home folder, whose name has a space and a quote; commands run as a user would run them, from another folder."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "it's my run"
        self.home.mkdir(parents=True)
        self.port, self.media_port = free_port(), free_port()
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("QWEN_FP8_", "SLURM_"))}
        self.env |= {
            "QWEN_FP8_HOME": str(self.home),
            "QWEN_FP8_PYTHON": sys.executable,
            "QWEN_FP8_PORT": str(self.port),
            "QWEN_FP8_MEDIA_PORT": str(self.media_port),
            "QWEN_FP8_PROBE_INTERVAL": "1",
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.media_url = f"http://127.0.0.1:{self.media_port}"

    @property
    def media_root(self) -> Path:
        return self.home / "media"

    def command(self, *words: str) -> list[str]:
        wrappers = {"start": "start_service.sh", "stop": "stop_service.sh", "download": "download_model.sh"}
        if words[0] in wrappers:
            return [str(ROOT / wrappers[words[0]]), *words[1:]]
        return [sys.executable, "-m", "qwen_fp8_ops", *words]

    def run(self, *words: str, timeout: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        """A command, waited for."""
        env = {**self.env, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            self.command(*words), env=env, cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        """A command, running."""
        env = {**self.env, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            self.command(*words), env=env, cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start(self, *words: str) -> None:
        done = self.run("start", "--profile", "demo", "--detach", *words)
        assert done.returncode == 0, done.stderr + self.logs()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def wait_state(self, *states: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_for(
            lambda: (status := self.status())["state"] in states and status, f"the service is {' or '.join(states)}", START_SECONDS
        )
        return found

    def pid(self, name: str) -> int:
        """Of the program; there must be one."""
        state = json.loads((self.home / "run/state.json").read_text())
        pid = next(program["pid"] for program in state["programs"] if program["name"] == name)
        assert isinstance(pid, int), state
        return pid

    def supervisor_pid(self) -> int:
        return int(json.loads((self.home / "run/lock").read_text())["pid"])

    def engine_core_pid(self) -> int:
        """The one child of this service's API server that titled itself so."""
        for child in Path(f"/proc/{self.pid('engine0')}/task").glob("*/children"):
            for pid in child.read_text().split():
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"VLLM::EngineCore"):
                    return int(pid)
        raise AssertionError("there is no EngineCore")

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.home / "run/events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def chat(self, content: Any, *, key: str = "", timeout: float = 120, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 60, **request}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=timeout)

    def logs(self) -> str:
        texts = [path.read_text(errors="replace")[-3000:] for path in (self.home / "logs/supervisor.log", self.home / "logs/service.log") if path.exists()]
        return "\n".join(texts)

    def close(self) -> None:
        """Whatever a failed test left: the service's own stop, by force."""
        done = self.run("stop", "--force")
        if done.returncode != 0 and (self.home / "run/lock").exists():
            os.kill(self.supervisor_pid(), signal.SIGKILL)
            self.run("stop", "--force")
