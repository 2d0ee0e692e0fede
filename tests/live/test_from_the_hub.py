"""From a Hub to an answer: download, verify, plan, start, ask; the model is the demo checkpoint under another name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.weights import demo
from tests.hub.server import Hub, serving
from tests.live.service import LiveService

pytestmark = pytest.mark.engine

REPO = "acme/tiny-qwen3-vl-moe"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("built") / "checkpoint"
    demo.ensure(folder, lambda text: None)
    with serving() as local:
        local.add(REPO, {path.name: path for path in folder.iterdir() if path.name != "demo.json"})
        yield local


@pytest.fixture
def service(hub: Hub, tmp_path: Path) -> Iterator[LiveService]:
    found = LiveService(tmp_path)
    found.env |= {key: value for key, value in hub.environment(tmp_path).items() if key.startswith(("HF_", "NO_PROXY", "no_proxy"))}
    found.env |= {"QWEN_FP8_MODEL_ID": REPO, "QWEN_FP8_MODEL_PATH": "models/tiny"}
    yield found
    found.close()


def test_from_the_hub_to_an_answer(service: LiveService, hub: Hub) -> None:
    missing = service.run("start", "--profile", "demo", "--detach")
    assert missing.returncode == 4
    assert f"Error: Model not found at {service.home / 'models/tiny'}" in missing.stderr
    assert "./download_model.sh" in missing.stderr

    shard = hub.fail("model-00001", drop_after=100_000, times=1)
    fetched = service.run("download", "--profile", "demo", "--json")
    assert fetched.returncode == 0, fetched.stderr
    assert shard.times == 0, "the connection was dropped once, and it went on"
    assert (service.home / "models/tiny/manifest.json").exists()

    verified = service.run("verify", "--profile", "demo", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["bad"] == []

    planned = json.loads(service.run("plan", "--profile", "demo", "--json").stdout)
    assert planned["fits"]
    service.start()
    assert service.status()["memory"]["kv_cache_tokens"] == planned["kv_tokens"]
    answer = service.chat("Hello")
    assert answer.json()["choices"][0]["message"]["content"].strip()
    assert service.run("stop").returncode == 0

    shard_file = service.home / "models/tiny/model-00001-of-00006.safetensors"
    content = bytearray(shard_file.read_bytes())
    content[:8] = b"\xff" * 8
    shard_file.write_bytes(content)
    refused = service.run("start", "--profile", "demo", "--detach")
    assert refused.returncode == 4
    assert "not whole" in refused.stderr and "verify --repair" in refused.stderr
    assert service.run("verify", "--profile", "demo", "--repair").returncode == 0
    assert service.run("verify", "--profile", "demo").returncode == 0
