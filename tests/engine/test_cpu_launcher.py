"""The CPU launcher, asked in one child process: importing vLLM takes seconds, and must not touch this process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

PROGRAM = """
import json, sys
from qwen_fp8_ops.engine import cpu_launcher
from qwen_fp8_ops.outside import torchvision_cure
seen = {"light": sorted({"torch", "vllm"} & set(sys.modules))}
before = torchvision_cure.cure_torchvision()
seen["cured twice"] = before and torchvision_cure.cure_torchvision()
import torchvision, torch
seen["own library or cure"] = before != torchvision.extension._has_ops() or torch.version.cuda is not None

good = cpu_launcher.parse(["serve", "/models/x", "--port", "1234", '--limit-mm-per-prompt={"image":16,"video":2}', "--shutdown-timeout=20", "--async-scheduling"])
seen["good"] = [good.model_tag, good.port, good.limit_mm_per_prompt, good.shutdown_timeout, good.async_scheduling]
def refusal(*argv):
    try:
        cpu_launcher.parse(argv)
    except (SystemExit, TypeError, ValueError) as error:
        return [type(error).__name__, str(error)]
seen["unknown flag"] = refusal("serve", "/models/x", "--no-such-flag")
seen["bad value"] = refusal("serve", "/models/x", "--port", "many")
seen["not together"] = refusal("serve", "/models/x", "--enable-auto-tool-choice")
seen["no command"] = refusal()

from vllm.renderers.hf import _detect_content_format
from qwen_fp8_ops.weights.demo.files import CHAT_TEMPLATE
seen["content format"] = _detect_content_format(CHAT_TEMPLATE.read_text(), default="string")

cpu_launcher._cure_inspection()
from vllm.model_executor.models import registry
seen["torchvision in an inspection"] = registry._run_in_subprocess(lambda: __import__("torchvision").__version__)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    if find_spec("vllm") is None:
        pytest.skip("needs vLLM: the cpu or gpu extra")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    answers["stderr"] = done.stderr
    return answers


def test_import_is_light(seen: dict[str, Any]) -> None:
    assert seen["light"] == []


def test_torchvision_imports_with_its_own_library_or_with_the_cure(seen: dict[str, Any]) -> None:
    assert seen["own library or cure"]
    assert not seen["cured twice"]


def test_children_that_inspect_models_are_cured_too(seen: dict[str, Any]) -> None:
    assert seen["torchvision in an inspection"]


def test_good_flags_are_parsed(seen: dict[str, Any]) -> None:
    assert seen["good"] == ["/models/x", 1234, {"image": 16, "video": 2}, 20, True]


@pytest.mark.parametrize(
    ("case", "kind"), [("unknown flag", "SystemExit"), ("bad value", "SystemExit"), ("no command", "SystemExit"), ("not together", "TypeError")]
)
def test_bad_flags_are_refused(seen: dict[str, Any], case: str, kind: str) -> None:
    assert seen[case][0] == kind


def test_the_refusal_names_the_flag(seen: dict[str, Any]) -> None:
    assert "--no-such-flag" in seen["stderr"]
    assert "--tool-call-parser" in seen["not together"][1]


def test_the_demos_chat_template_is_given_content_in_parts(seen: dict[str, Any]) -> None:
    assert seen["content format"] == "openai"
