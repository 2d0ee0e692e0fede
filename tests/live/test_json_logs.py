"""LOG_FORMAT=json with the real engine: one request id in the answer, the audit and the engine's own lines; no prompt in any log, even at debug."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.service import LiveService
from tests.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PROMPT = "zanzibar-q7Zw9 prompt"
CANARY = "canary-q7Zw9-in-the-keys-file"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    service = LiveService(tmp_path_factory.mktemp("json-logs"))
    keys = service.home / "keys"
    keys.write_text(f"alice:{CANARY}\n")
    keys.chmod(0o600)
    try:
        service.start("--set", "LOG_FORMAT=json", "--set", "LOG_LEVEL=debug", "--set", "API_KEYS_FILE=keys")
        yield service
    finally:
        service.close()


def ask(service: LiveService, id: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {CANARY}", "X-Request-Id": id}
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5}
    return httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=headers, timeout=120)


def audited(service: LiveService, id: str) -> dict[str, Any]:
    path = service.home / "logs/audit.jsonl"

    def line() -> dict[str, Any] | None:
        lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
        return next((found for found in lines if found["request_id"] == id), None)

    found: dict[str, Any] = wait_for(line, "the request is in the audit")
    return found


def test_one_id_joins_answer_audit_and_engine(service: LiveService) -> None:
    id = "trace/7:live=1"
    answer = ask(service, id)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"] == id
    assert answer.json()["id"] == f"chatcmpl-{id}"
    line = audited(service, id)
    assert (line["event"], line["level"], line["who"], line["status"]) == ("request", "info", "alice", 200)
    assert line["completion_tokens"] == answer.json()["usage"]["completion_tokens"]
    log = (service.home / "logs/service.log").read_text()
    assert f"Received request chatcmpl-{id}: params: " in log
    assert f"Added request chatcmpl-{id}" in log


def test_no_log_has_the_prompt_or_a_key(service: LiveService) -> None:
    ask(service, "for-the-logs")
    audited(service, "for-the-logs")
    for path in (service.home / "logs").iterdir():
        text = path.read_text(errors="replace")
        assert "zanzibar" not in text, [line for line in text.splitlines() if "zanzibar" in line][:3]
        assert "q7Zw9" not in text


def test_every_line_of_the_supervisor_is_an_object_of_the_same_fields(service: LiveService) -> None:
    lines = [json.loads(line) for line in (service.home / "logs/supervisor.log").read_text().splitlines()]
    assert [line for line in lines if line["event"] == "ready"]
    assert all({"ts", "level", "event", "message"} == set(line) for line in lines)


def test_the_bundle_of_a_running_service_has_it_all_and_no_key(service: LiveService, tmp_path: Path) -> None:
    ask(service, "for-the-bundle")
    audited(service, "for-the-bundle")
    done = service.run("support-bundle", "--profile", "demo", "--set", "API_KEYS_FILE=keys", "--output", str(tmp_path / "b.tar.gz"))
    assert done.returncode == 0, done.stderr
    internal = (service.home / "run/keys").read_text().strip().partition(":")[2]
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        found = {entry.name.partition("/")[2]: file.read().decode() for entry in tar if (file := tar.extractfile(entry))}
    assert json.loads(found["status.json"])["state"] == "ready"
    assert "for-the-bundle" in found["logs/audit.jsonl"] and "chatcmpl-for-the-bundle" in found["logs/service.log"]
    assert json.loads(found["run/plan.json"])["programs"]
    for text in found.values():
        assert "q7Zw9" not in text and internal not in text
