"""Settings that are allowed and unwise."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject

PHOTO_MB = 8
"""What a photo takes as base64 inside of a request."""


@check(
    "Model",
    {
        "dtype-float16": "DTYPE is not float16, which turns off fast FP8 kernels and can overflow",
        "body-limit": "MAX_BODY_MB lets a photo through",
    },
)
def check_settings(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    if settings.dtype == "float16":
        yield Finding("dtype-float16", "warn", "DTYPE=float16 turns off DeepGEMM kernels and can overflow", "Set DTYPE=bfloat16, the checkpoint's own.")
    if settings.max_body_mb < PHOTO_MB:
        yield Finding("body-limit", "warn", f"MAX_BODY_MB={settings.max_body_mb} is less than a photo takes as base64", "Set MAX_BODY_MB=256.")
