"""What a file holds, told by its first bytes: the name's ending is only a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "video"]
HEAD_BYTES = 4096
"""How much of a file's beginning is needed; a Matroska file names its document type within the first few hundred bytes."""


@dataclass(frozen=True)
class MediaType:
    kind: Kind
    mime: str


PNG, JPEG, GIF, WEBP, BMP, TIFF = (MediaType("image", f"image/{name}") for name in ("png", "jpeg", "gif", "webp", "bmp", "tiff"))
MP4, WEBM, MATROSKA, AVI, QUICKTIME = (MediaType("video", f"video/{name}") for name in ("mp4", "webm", "x-matroska", "x-msvideo", "quicktime"))

SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
)
BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
"""Lengths of the second header, which every BMP tells at byte 14; two letters alone could begin any text."""

QUICKTIME_ATOMS = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
"""What films made before the ``ftyp`` atom begin with."""

HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
STILL_BRANDS = HEIC_BRANDS | AVIF_BRANDS | {b"mif1", b"msf1"}

OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"ID3", "an MP3 sound"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC sound"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
)


def detect(head: bytes) -> MediaType | None:
    """The type of a file that begins with ``head``; None when it is no image or video that the service takes."""
    for signature, found in SIGNATURES:
        if head.startswith(signature):
            return found
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"AVI ": AVI}.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return BMP
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return WEBM if b"webm" in head else MATROSKA if b"matroska" in head else None
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return QUICKTIME if brand == b"qt  " else None if brand in STILL_BRANDS or brand.startswith(b"M4A") else MP4
    return QUICKTIME if head[4:8] in QUICKTIME_ATOMS else None


def still_brands(head: bytes) -> frozenset[bytes]:
    """What a HEIF file (HEIC, AVIF) calls itself: its ``ftyp`` box has a main brand, which may be general, and others. Empty for the rest."""
    if head[4:8] != b"ftyp" or head[8:12] not in STILL_BRANDS:
        return frozenset()
    box = head[8 : max(12, int.from_bytes(head[:4]))]
    return frozenset(box[at : at + 4] for at in range(0, len(box), 4)) & STILL_BRANDS


def describe(head: bytes) -> str:
    """What a file that ``detect`` does not know seems to be, in words."""
    for signature, words in OTHERS:
        if head.startswith(signature):
            return words
    if head[4:8] == b"ftyp":
        return f"a file of the type {head[8:12].decode('latin-1').strip()!r}, which is not taken"
    if head[:4] == b"RIFF":
        return f"a RIFF file of the type {head[8:12].decode('latin-1').strip()!r}, which is not taken"
    beginning = head[:24]
    text = beginning.decode("utf-8", "replace").rstrip("\ufffd")  # the cut may go through a letter
    if text and "\ufffd" not in text and all(letter.isprintable() or letter in "\t\r\n" for letter in text):
        return f"text that begins with {text!r}"
    return f"data that begins with {head[:8].hex(' ')}"
