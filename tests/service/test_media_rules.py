"""What the supervisor tells the gate about media: from the plan's settings and addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.gate.fetch_rules import MediaRules
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service.gate_rules import gate_rules, media_rules


def rules(home: Path, **settings: str) -> MediaRules:
    return media_rules(make_plan(load(overrides=[f"{key}={value}" for key, value in settings.items()]), RunPaths(home)))


def test_by_default_our_media_server_alone(tmp_path: Path) -> None:
    told = rules(tmp_path)
    assert told == MediaRules(server=("127.0.0.1", "localhost"), server_port=8080, server_root=str(tmp_path / "media"))
    assert not told.allows_host("example.com")


@pytest.mark.parametrize(
    ("media_host", "names"),
    [
        ("127.0.0.1", {"127.0.0.1", "localhost"}),
        ("localhost", {"127.0.0.1", "localhost"}),
        ("node07", {"node07"}),
        ("0.0.0.0", {"127.0.0.1", socket.gethostname().lower()}),
    ],
)
def test_the_media_server_by_each_of_its_names(tmp_path: Path, media_host: str, names: set[str]) -> None:
    told = rules(tmp_path, MEDIA_HOST=media_host, MEDIA_PORT="9090")
    assert names <= set(told.server)
    assert all(told.is_our_server(name, 9090) and not told.is_our_server(name, 8080) for name in names)


def test_what_the_operator_allows(tmp_path: Path) -> None:
    told = rules(tmp_path, ALLOWED_MEDIA_DOMAINS="store.cluster.local, 10.20.0.0/16 fd00:1::/32 *")
    assert told.allowed == ("store.cluster.local", "10.20.0.0/16", "fd00:1::/32", "*")


def test_a_network_that_is_none_is_refused_with_what_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"10\.20\.3\.4/16 is no network") as caught:
        rules(tmp_path, ALLOWED_MEDIA_DOMAINS="10.20.3.4/16")
    assert "10.20.0.0/16" in caught.value.fix


def test_the_gate_is_told(tmp_path: Path) -> None:
    plan = make_plan(load(overrides=["ALLOWED_MEDIA_DOMAINS=a.example"]), RunPaths(tmp_path))
    assert gate_rules(plan, RunPaths(tmp_path), draining=False, ends_at=None).media == media_rules(plan)
