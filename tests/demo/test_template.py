"""The demo's chat template, case by case as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_fp8_ops.weights.demo.files import CHAT_TEMPLATE

OPEN = "<|im_start|>assistant\n<think>\n"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


def render(*messages: dict[str, Any], **options: Any) -> str:
    """As transformers does it: the same sandbox and settings, and JSON in plain UTF-8."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE.read_text(encoding="utf-8")).render(messages=messages, **options)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


ASK = turn("user", "Hi")
ASKED = "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({}, ""),
        ({"add_generation_prompt": False}, ""),
        ({"add_generation_prompt": True}, OPEN),
        ({"add_generation_prompt": True, "enable_thinking": True}, OPEN),
        ({"add_generation_prompt": True, "enable_thinking": False}, OPEN + "\n</think>\n\n"),
    ],
)
def test_generation_prompt(options: dict[str, Any], end: str) -> None:
    assert render(ASK, **options) == ASKED + end


def test_system_and_several_turns() -> None:
    assert render(turn("system", "Be kind."), ASK, turn("assistant", "Hello"), ASK) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n" + ASKED + "<|im_start|>assistant\nHello<|im_end|>\n" + ASKED
    )


def test_images_and_videos_stand_where_they_were_put() -> None:
    content = [
        {"type": "text", "text": "A"},
        {"type": "image"},
        {"type": "image_url", "image_url": {"url": "u"}},
        {"type": "text", "text": "B"},
        {"type": "video"},
        {"type": "text", "text": "?"},
    ]
    assert render(turn("user", content)) == f"<|im_start|>user\nA{IMAGE}{IMAGE}B{VIDEO}?<|im_end|>\n"


def test_system_content_in_parts() -> None:
    assert render(turn("system", [{"type": "text", "text": "Be kind."}]), ASK) == "<|im_start|>system\nBe kind.<|im_end|>\n" + ASKED


@pytest.mark.parametrize(
    "past", [turn("assistant", "No", reasoning="hmm"), turn("assistant", "No", reasoning_content="hmm"), turn("assistant", "<think>\nhmm\n</think>\n\nNo")]
)
def test_thinking_of_answered_questions_is_dropped(past: dict[str, Any]) -> None:
    assert render(ASK, past, ASK) == ASKED + "<|im_start|>assistant\nNo<|im_end|>\n" + ASKED


@pytest.mark.parametrize("step", [turn("assistant", "No", reasoning="hmm"), turn("assistant", "<think>\nhmm\n</think>\n\nNo")])
def test_thinking_after_the_last_question_is_kept(step: dict[str, Any]) -> None:
    assert render(ASK, step) == ASKED + "<|im_start|>assistant\n<think>\nhmm\n</think>\n\nNo<|im_end|>\n"


def test_tools_are_listed_with_or_without_a_system_turn() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "für Köln"}}
    alone = render(ASK, tools=[tool])
    assert alone.startswith("<|im_start|>system\n# Tools\n")
    assert alone.endswith("</tool_call><|im_end|>\n" + ASKED)
    assert f"<tools>\n{json.dumps(tool, ensure_ascii=False)}\n</tools>" in alone
    assert render(turn("system", "Be kind."), ASK, tools=[tool]).startswith("<|im_start|>system\nBe kind.\n\n# Tools\n")


@pytest.mark.parametrize("arguments", ['{"city": "Köln"}', {"city": "Köln"}])
def test_tool_calls_and_their_results(arguments: Any) -> None:
    text = render(
        ASK,
        turn("assistant", None, tool_calls=[call("weather", arguments), call("weather", arguments)]),
        turn("tool", "sun"),
        turn("tool", [{"type": "text", "text": "rain"}]),
    )
    called = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    results = "<|im_start|>user\n<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
    assert text == ASKED + f"<|im_start|>assistant\n{called}\n{called}<|im_end|>\n" + results


def test_a_tool_call_after_words() -> None:
    assert render(ASK, turn("assistant", "Wait.", tool_calls=[call("now", {})])) == (
        ASKED + '<|im_start|>assistant\nWait.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>\n'
    )
