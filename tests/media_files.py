"""Real PNG, JPEG and MP4 files for the tests, made on the spot."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path

Colour = tuple[int, int, int]


def make_image(path: Path, size: tuple[int, int] = (160, 120), colour: Colour = (200, 40, 40)) -> Path:
    """A field of one colour (red, green, blue) with a darker box in its middle; the name's ending chooses PNG or JPEG."""
    from PIL import Image, ImageDraw

    width, height = size
    image = Image.new("RGB", size, colour)
    ImageDraw.Draw(image).rectangle((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=tuple(value // 3 for value in colour))
    image.save(path)
    return path


def make_video(path: Path, frames: int = 8, size: tuple[int, int] = (128, 128), fps: int = 4) -> Path:
    """An MP4 (MPEG-4 part 2) of a light square that crosses a dark field from left to right."""
    import cv2
    import numpy as np

    width, height = size
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    assert writer.isOpened(), f"this OpenCV cannot write {path}"
    side = max(2, width // 4)
    for number in range(frames):
        frame = np.full((height, width, 3), 30, dtype=np.uint8)
        left = (width - side) * number // max(1, frames - 1)
        frame[height // 3 : height // 3 + side, left : left + side] = (90, 200, 240)
        writer.write(frame)
    writer.release()
    return path


def data_url(path: Path) -> str:
    """The file as a data: URL, its type told by its name."""
    kind = mimetypes.guess_type(path.name)[0]
    assert kind, f"no media type is known for {path.name}"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
