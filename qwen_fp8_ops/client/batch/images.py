"""An image made ready to be sent: whole, upright, of a type the service takes, and not larger than the model looks at.

What fits already stays as it is, byte for byte. The rest is turned as its EXIF says, put on white where it is transparent, reduced to
the size the model's own processor would reduce it to, and encoded again.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_fp8_ops.client.media_files import MediaError, shown, wrong_media
from qwen_fp8_ops.client.media_types import AVIF_BRANDS, HEAD_BYTES, HEIC_BRANDS, JPEG, PNG, MediaType, detect, still_brands
from qwen_fp8_ops.errors import OpsError

if TYPE_CHECKING:
    from PIL import Image

SIDE = 32
"""Pixels of an image token's side: patches of 16, merged two by two (facts of Qwen3-VL)."""
MODEL_PIXELS = 16384 * SIDE * SIDE
"""The most that Qwen3-VL's own processor lets through: 16,384 tokens."""
MOST_PIXELS = 500_000_000
"""What one picture may cost us while it is unpacked: 1.5 GB. A larger one is refused before that."""
LARGEST_PNG_BYTES = 8_000_000
QUALITY = 95
UPRIGHT = 1
ORIENTATION = 0x0112
PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"})
"""Modes that the engine brings to RGB just as we would; 16 bits a channel are not among them."""
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, AssertionError, RuntimeError, struct.error)
"""What Pillow's decoders raise on damaged files, each its own."""


@dataclass(frozen=True)
class Fitted:
    """``changed``: these are not the file's own bytes any more."""

    data: bytes
    mime: str
    changed: bool


def require_pillow() -> None:
    """
    Raises:
        OpsError: it is not installed (code ``no-pillow``).
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise OpsError("Images are read with Pillow, which is not installed here", code="no-pillow", fix="pip install 'qwen-fp8-ops[batch]'") from error
    # Refused by MOST_PIXELS instead: Pillow's own limit warns on stderr, in whichever thread it happens.
    Image.MAX_IMAGE_PIXELS = None
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return  # each HEIC is then told with what it needs
    register_heif_opener()


def fit(data: bytes, name: str, max_pixels: int) -> Fitted:
    """
    Args:
        name: for messages.

    Raises:
        MediaError: it is no image (code ``wrong-media``), damaged (``broken-image``), enormous (``too-large``), or of a type that Pillow
            does not read as it is installed here (``missing-package``).
    """
    from PIL import Image, UnidentifiedImageError

    head = data[:HEAD_BYTES]
    media = detect(head)
    if media is not None and media.kind != "image":
        raise wrong_media(name, head, "image")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "EPS":  # a program, which Pillow would have Ghostscript run
                raise wrong_media(name, head, "image")
            return _fitted(image, media, data, name, max_pixels)
    except UnidentifiedImageError as error:
        raise _unidentified(name, head, media) from error
    except BROKEN as error:
        raise _broken(name, str(error) or type(error).__name__) from error


def _fitted(image: Image.Image, media: MediaType | None, data: bytes, name: str, max_pixels: int) -> Fitted:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise MediaError(f"{shown(name)} has {width} x {height} pixels, more than {MOST_PIXELS:,}", code="too-large", fix="Cut it into parts.")
    turn = _orientation(image)
    size = smaller(width, height, max_pixels)
    if media is not None and turn == UPRIGHT and size is None and image.mode in PLAIN_MODES:
        image.draft("RGB", (width // 8, height // 8))  # a JPEG is read to its end, but not worked out in full
        image.load()
        return Fitted(data, media.mime, changed=False)
    if size:
        image.draft("RGB", size)
    lossless = image.format in ("PNG", "BMP", "TIFF", "GIF")
    upright = _turned(_on_white(image), turn)
    if size:
        from PIL import Image

        upright = upright.resize(smaller(*_swapped(width, height, turn), max_pixels) or upright.size, Image.Resampling.BICUBIC)
    return _encoded(upright, lossless=lossless)


def smaller(width: int, height: int, max_pixels: int) -> tuple[int, int] | None:
    """The size to reduce to: the processor's own rule (``smart_resize`` of qwen_vl_utils), so that it leaves the result alone.
    None when the image is within the budget.
    """
    near = [max(SIDE, round(side / SIDE) * SIDE) for side in (width, height)]
    if max_pixels <= 0 or near[0] * near[1] <= max_pixels:
        return None
    shrink = math.sqrt(width * height / max_pixels)
    wide, high = (max(SIDE, math.floor(side / shrink / SIDE) * SIDE) for side in (width, height))
    return wide, high


def _orientation(image: Image.Image) -> int:
    """The EXIF tag, 1 to 8; whatever else it says, and EXIF that cannot be read, mean upright."""
    try:
        found = image.getexif().get(ORIENTATION, UPRIGHT)
    except BROKEN:
        return UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def _swapped(width: int, height: int, turn: int) -> tuple[int, int]:
    return (height, width) if turn >= 5 else (width, height)


def _turned(image: Image.Image, turn: int) -> Image.Image:
    from PIL import Image

    how = Image.Transpose
    ways = {2: how.FLIP_LEFT_RIGHT, 3: how.ROTATE_180, 4: how.FLIP_TOP_BOTTOM, 5: how.TRANSPOSE, 6: how.ROTATE_270, 7: how.TRANSVERSE, 8: how.ROTATE_90}
    return image.transpose(ways[turn]) if turn in ways else image


def _on_white(image: Image.Image) -> Image.Image:
    """In RGB. What shines through becomes white, as the engine does it."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGB", clear.size, "white")
        white.paste(clear, mask=clear.getchannel("A"))
        return white
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    return image.convert("RGB")


def _encoded(image: Image.Image, *, lossless: bool) -> Fitted:
    """What had no losses keeps none, as text in screenshots wants it, until that would make the request very large."""
    out = io.BytesIO()
    if lossless:
        image.save(out, "PNG", compress_level=1)
        if out.tell() <= LARGEST_PNG_BYTES:
            return Fitted(out.getvalue(), PNG.mime, changed=True)
        out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return Fitted(out.getvalue(), JPEG.mime, changed=True)


def _unidentified(name: str, head: bytes, media: MediaType | None) -> MediaError:
    """For a file that no decoder of this Pillow takes for its own. The message alone is kept, so the remedy stands in it."""
    from PIL import Image, features

    brands = still_brands(head)
    if brands & HEIC_BRANDS and "HEIF" not in Image.OPEN:
        return MediaError(f"{shown(name)} is HEIC, which needs one more package: pip install pillow-heif", code="missing-package")
    if brands & AVIF_BRANDS and not features.check("avif"):
        return MediaError(f"{shown(name)} is AVIF, which needs a newer Pillow: pip install --upgrade pillow", code="missing-package")
    if media is None and not brands:
        return wrong_media(name, head, "image")
    return _broken(name, "it ends too early or is damaged")


def _broken(name: str, why: str) -> MediaError:
    return MediaError(f"{shown(name)} is damaged: {why}", code="broken-image", fix="Was it copied or downloaded to its end?")
