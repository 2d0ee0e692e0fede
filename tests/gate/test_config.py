from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.config import GateConfig, read_config

GOOD = GateConfig(max_body_bytes=10, audit="/a", state="/s", ends_at="2026-01-01T00:00:00.000Z", keys_files=("/k", "/l"), keys_required=True)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(GOOD.as_json()))
    assert read_config(path) == GOOD


def test_the_file_has_the_keys_that_the_supervisor_promises() -> None:
    assert set(GOOD.as_json()) == {
        "schema", "draining", "retry_after_seconds", "ends_at", "keys_files", "keys_required", "rate_limit_per_minute", "max_body_bytes",
        "default_max_tokens", "audit", "state", "log_format", "media", "poison", "in_flight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("draining", 1), ("draining", None), ("retry_after_seconds", -1), ("retry_after_seconds", "3"), ("ends_at", 5), ("ends_at", "now\r\nset-cookie: a"),
        ("keys_files", "/k"), ("keys_files", [1]), ("keys_required", "yes"), ("rate_limit_per_minute", True), ("max_body_bytes", 0), ("max_body_bytes", 1.5),
        ("default_max_tokens", -1), ("audit", ""), ("audit", None), ("state", 3), ("log_format", "xml"),
        ("log_format", []),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(key: str, value: Any) -> None:
    with pytest.raises(OpsError, match=key):
        GateConfig.from_json({**GOOD.as_json(), key: value})


@pytest.mark.parametrize("key", [key for key in GOOD.as_json() if key != "ends_at"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(OpsError, match=key):
        GateConfig.from_json({name: value for name, value in GOOD.as_json().items() if name != key})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_other_json_is_refused_in_words(value: Any) -> None:
    with pytest.raises(OpsError):
        GateConfig.from_json(value)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    with pytest.raises(OpsError, match=str(path)):
        read_config(path)
    path.write_text('{"schema": 1')
    with pytest.raises(OpsError, match=str(path)):
        read_config(path)


def test_the_supervisor_does_not_load_the_servers_side_and_nobody_loads_anything_heavy() -> None:
    light = "import sys, qwen_fp8_ops.gate; print(sorted(sys.modules))"
    assert "asyncio" not in modules(light)
    full = modules("import sys; from qwen_fp8_ops.gate import Gate; print(sorted(sys.modules))")
    assert "qwen_fp8_ops.gate.app" in full
    foreign = {name.split(".")[0] for name in full} - set(sys.stdlib_module_names) - {"qwen_fp8_ops", "__main__"}
    started_with = {name.split(".")[0] for name in modules("import sys; print(sorted(sys.modules))")}
    assert foreign <= started_with


def modules(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[2])
    return list(json.loads(done.stdout.replace("'", '"')))
