from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from qwen_fp8_ops.cli.batch_options import MODEL_PIXELS as OPTION_PIXELS
from qwen_fp8_ops.client.batch.images import MODEL_PIXELS, ORIENTATION, SIDE, fit, require_pillow, smaller
from qwen_fp8_ops.client.media_files import MediaError
from tests.media_files import make_video

require_pillow()
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]


def encoded(image: Image.Image, form: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def two_halves(width: int = 64, height: int = 32) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def colour(image: Image.Image, x: float, y: float) -> str:
    red, green, blue = image.getpixel((int(x * image.width), int(y * image.height)))  # type: ignore[misc]
    return "white" if min(red, green, blue) > 200 else "red" if red > blue + 80 else "blue" if blue > red + 80 else f"{red} {green} {blue}"


@pytest.mark.parametrize("form", FORMATS)
def test_what_fits_stays_as_it_is(form: str) -> None:
    data = encoded(two_halves(), form)
    fitted = fit(data, "x", MODEL_PIXELS)
    assert (fitted.data, fitted.mime, fitted.changed) == (data, f"image/{form.lower()}", False)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("max_pixels", [MODEL_PIXELS, 64 * 64])
def test_a_turned_picture_stands_upright(turn: int, max_pixels: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    fitted = fit(encoded(two_halves(256, 128), "JPEG", exif=exif, quality=95), "x", max_pixels)
    image = opened(fitted.data)
    # Where the left half, the first columns as they are stored, is to be seen: EXIF 2.3, tag 0x0112.
    where = {1: (0.1, 0.5), 2: (0.9, 0.5), 3: (0.9, 0.5), 4: (0.1, 0.5), 5: (0.5, 0.1), 6: (0.5, 0.1), 7: (0.5, 0.9), 8: (0.5, 0.9)}[turn]
    assert colour(image, *where) == "red"
    assert colour(image, 1 - where[0], 1 - where[1]) == "blue"
    assert (image.width > image.height) == (turn < 5)
    assert fitted.changed == (turn > 1 or max_pixels < MODEL_PIXELS)
    assert not Image.open(io.BytesIO(fitted.data)).getexif().get(ORIENTATION) or not fitted.changed


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(SIDE * SIDE * 4, MODEL_PIXELS))
def test_the_reduced_size_is_one_that_the_processor_leaves_alone(width: int, height: int, budget: int) -> None:
    size = smaller(width, height, budget)
    if size is None:
        assert max(SIDE, round(width / SIDE) * SIDE) * max(SIDE, round(height / SIDE) * SIDE) <= budget
        return
    assert size[0] % SIDE == size[1] % SIDE == 0
    if min(size) > SIDE:  # a strip thinner than one token cannot be made thinner
        assert size[0] * size[1] <= budget
        assert smaller(*size, budget) is None


@pytest.mark.parametrize("form", FORMATS)
def test_a_large_picture_is_reduced_and_stays_what_it_shows(form: str) -> None:
    fitted = fit(encoded(two_halves(800, 400), form), "x", 128 * 64)
    image = opened(fitted.data)
    assert fitted.changed
    assert image.size == (128, 64)
    assert (colour(image, 0.2, 0.5), colour(image, 0.8, 0.5)) == ("red", "blue")
    assert fitted.mime == ("image/jpeg" if form in ("JPEG", "WEBP") else "image/png")


def test_what_shines_through_becomes_white() -> None:
    image = Image.new("RGBA", (800, 400), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (400, 0, 800, 400))
    small = opened(fit(encoded(image, "PNG"), "x", 128 * 64).data)
    assert (colour(small, 0.2, 0.5), colour(small, 0.8, 0.5)) == ("white", "blue")


def test_sixteen_bits_a_channel_become_eight() -> None:
    image = Image.new("I;16", (64, 64), 40_000)
    fitted = fit(encoded(image, "PNG"), "x", MODEL_PIXELS)
    assert fitted.changed
    assert opened(fitted.data).getpixel((5, 5)) == (156, 156, 156)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_type_that_the_service_does_not_take_is_sent_as_another() -> None:
    fitted = fit(encoded(two_halves(), "AVIF"), "x", MODEL_PIXELS)
    assert (fitted.mime, fitted.changed) == ("image/jpeg", True)
    assert colour(opened(fitted.data), 0.2, 0.5) == "red"


@pytest.mark.skipif("HEIF" in Image.OPEN, reason="this Pillow reads HEIC")
@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic"])
def test_heic_names_the_package_that_it_needs(brands: bytes) -> None:
    with pytest.raises(MediaError, match=r"holiday.heic is HEIC.*pip install pillow-heif") as caught:
        fit(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(500), "holiday.heic", MODEL_PIXELS)
    assert caught.value.code == "missing-package"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_file_of_a_type_that_is_sent_as_another_is_told_as_damaged() -> None:
    with pytest.raises(MediaError) as caught:
        fit(encoded(two_halves(), "AVIF")[:60], "x.avif", MODEL_PIXELS)
    assert caught.value.code == "broken-image"


def test_an_animation_is_its_first_picture(tmp_path: Path) -> None:
    data = encoded(two_halves(800, 400), "GIF", save_all=True, append_images=[Image.new("RGB", (800, 400), "white")])
    assert colour(opened(fit(data, "x", 128 * 64).data), 0.2, 0.5) == "red"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"just text", "wrong-media", "text that begins with 'just text'"),
        (b"%PDF-1.7", "wrong-media", "a PDF document"),
        (encoded(two_halves(), "EPS"), "wrong-media", "%!PS"),  # whoever draws it runs it
        (b"\x89PNG\r\n\x1a\n", "broken-image", "damaged"),
        (encoded(two_halves(), "PNG")[:-30], "broken-image", "damaged"),
        (encoded(two_halves(300, 300), "JPEG")[:-30], "broken-image", "truncated"),
    ],
)
def test_what_cannot_be_sent_says_why(data: bytes, code: str, words: str) -> None:
    with pytest.raises(MediaError) as caught:
        fit(data, "holiday.png", MODEL_PIXELS)
    assert caught.value.code == code
    assert "holiday.png" in caught.value.message
    assert words in caught.value.message


def test_a_video_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a video"):
        fit(make_video(tmp_path / "clip.mp4").read_bytes(), "clip.jpg", MODEL_PIXELS)


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_unpacked() -> None:
    data = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 40_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(MediaError, match="40000 x 20000") as caught:
        fit(bytes(data), "x", MODEL_PIXELS)
    assert caught.value.code == "too-large"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about odd metadata
@pytest.mark.parametrize("form", [*FORMATS, "AVIF"])
@pytest.mark.parametrize("max_pixels", [MODEL_PIXELS, 64 * 64])
def test_damage_never_does_more_than_be_told(form: str, max_pixels: int) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    random = Random(form)
    noise = Image.frombytes("RGB", (96, 96), random.randbytes(96 * 96 * 3))
    whole = encoded(noise, form)
    cuts = [whole[: random.randrange(len(whole))] for _ in range(15)]
    flips = []
    for _ in range(45):
        damaged = bytearray(whole)
        for _, place in zip(range(random.choice((1, 8, 60))), itertools.count(), strict=False):
            damaged[random.randrange(min(len(whole), 400) if place % 2 else len(whole))] = random.randrange(256)
        flips.append(bytes(damaged))
    for data in cuts + flips:
        try:
            fit(data, "x", max_pixels)
        except MediaError as error:
            assert error.code in ("broken-image", "wrong-media", "too-large", "missing-package")  # noqa: PT017


def test_the_command_line_has_the_same_budget() -> None:
    assert OPTION_PIXELS == MODEL_PIXELS
