"""A media server that somebody else started: used when it serves our root, refused when it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_fp8_ops.outside.media_health import health
from tests.service.harness import HERE, StandInService
from tests.waiting import wait_for


@contextmanager
def media_server(service: StandInService, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    root.mkdir(exist_ok=True)
    port = service.settings["MEDIA_PORT"]
    argv = [sys.executable, "-m", "qwen_fp8_ops.media", "--root", str(root), "--port", str(port)]
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)}, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: health("127.0.0.1", port, 2), "the media server is up")
            yield process
        finally:
            process.terminate()


def test_same_root_is_used_and_left_running(service: StandInService) -> None:
    with media_server(service, service.paths.home / "media") as process:
        service.started()
        assert not [event for event in service.events("program-started") if event["name"] == "media"]
        assert service.status()["media"]["state"] == "ready"
        service.signal(signal.SIGTERM)
        code, said = service.ended()
        assert code == 0, said
        assert process.poll() is None
        assert health("127.0.0.1", service.settings["MEDIA_PORT"], 2)


def test_when_its_owner_ends_it_we_start_our_own(service: StandInService) -> None:
    with media_server(service, service.paths.home / "media") as process:
        service.started()
        process.terminate()
        process.wait(timeout=30)
        wait_for(lambda: [event for event in service.events("program-started") if event["name"] == "media"], "our own was started")
        service.wait_state("ready")


def test_another_root_is_refused_with_pid_and_command(service: StandInService) -> None:
    with media_server(service, service.paths.home / "other") as process:
        service.start()
        code, said = service.ended()
        assert code == 4
        assert f"Port {service.settings['MEDIA_PORT']} is already in use (pid {process.pid}: " in said
        assert "qwen_fp8_ops.media" in said
        assert service.status()["error"]["code"] == "media-port"
