"""File name to content type. The table is ours and the standard library's, never this machine's /etc/mime.types."""

from __future__ import annotations

import mimetypes
import os

MEDIA = {
    ".aac": "audio/aac",
    ".avi": "video/x-msvideo",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".jsonl": "application/jsonl",
    ".m4a": "audio/mp4",
    ".m4v": "video/x-m4v",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".npy": "application/octet-stream",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".srt": "application/x-subrip",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".ts": "video/mp2t",
    ".vtt": "text/vtt",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".wmv": "video/x-ms-wmv",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
OTHERS = mimetypes.MimeTypes(filenames=()).types_map[True]
UNKNOWN = "application/octet-stream"

ACTIVE = frozenset({"text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml"})
"""Types that can carry a script, which would then read every other file of the server: a browser gets them in a sandbox."""


def content_type(name: str) -> str:
    extension = os.path.splitext(name)[1].lower()
    found = MEDIA.get(extension) or OTHERS.get(extension) or UNKNOWN
    return f"{found}; charset=utf-8" if found.startswith("text/") else found


def is_active(content_type: str) -> bool:
    return content_type.partition(";")[0] in ACTIVE
