"""An example as a chat request, and the answer out of the response."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qwen_fp8_ops.weights.demo.world.example import Example
from qwen_fp8_ops.weights.demo.world.films import FRAMES_PER_SECOND

LONGEST_ANSWER = 320


def request(example: Example, model: str) -> dict[str, Any]:
    """Pictures go as PNG, clips as MP4, both as data URLs. Temperature 0."""
    if example.film:
        media = [{"type": "video_url", "video_url": {"url": _url("video/mp4", mp4([picture.image for picture in example.pictures]))}}]
    else:
        media = [{"type": "image_url", "image_url": {"url": _url("image/png", png(picture.image))}} for picture in example.pictures]
    text = [{"type": "text", "text": example.turns[0].question}]
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": text + media if example.text_first else media + text}],
        "temperature": 0,
        "max_tokens": LONGEST_ANSWER,
        "chat_template_kwargs": {"enable_thinking": example.thinks},
    }
    if example.tools:
        body["tools"] = list(example.tools)
    return body


def answer_of(response: dict[str, Any]) -> tuple[str, bool]:
    """The answer's text, or its tool call as JSON; and whether there is an answer at all, so that the thinking was closed."""
    message = response["choices"][0]["message"]
    for call in message.get("tool_calls") or []:
        try:
            arguments = json.loads(call["function"]["arguments"])
        except ValueError:
            arguments = None
        return json.dumps({"name": call["function"]["name"], "arguments": arguments}), True
    content = message.get("content") or ""
    if "<tool_call>" in content:
        content = content.split("<tool_call>")[1].split("</tool_call>")[0]
    return content, bool(content.strip())


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def mp4(frames: list[Image.Image]) -> bytes:
    """A clip as a camera would give it: compressed, at the world's frame rate."""
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FRAMES_PER_SECOND, frames[0].size)
        for frame in frames:
            writer.write(np.asarray(frame)[:, :, ::-1])
        writer.release()
        return path.read_bytes()


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
