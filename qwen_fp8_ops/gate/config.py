"""What the supervisor tells the gate, in one JSON file (``RunPaths.gate``): one writer, replaced atomically, many readers.

A change takes effect without a restart: draining above all, but every other key too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.fetch_rules import MediaRules
from qwen_fp8_ops.outside.files import read_json

GATE_VARIABLE = "QWEN_FP8_GATE"
"""Environment variable that names the file."""

SCHEMA = 1
LOG_FORMATS = ("text", "json")
HEADER_SAFE = re.compile(r"[0-9A-Za-z:+.-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The gate's rules.

    ``ends_at`` is ISO 8601; ``keys_files`` are files of ``name:key`` lines, the first the supervisor's own; ``audit`` and ``state`` are paths. A
    ``rate_limit_per_minute`` of 0 is no limit. A ``default_max_tokens`` of 0 leaves requests as they are; it must not be larger
    than the context, or vLLM refuses every request that gives no limit of its own. ``log_format`` is the audit's: text or json.
    ``poison`` is the file of requests to refuse, ``in_flight`` the folder where running ones are recorded; empty: neither is done.
    """

    max_body_bytes: int
    audit: str
    state: str
    draining: bool = False
    retry_after_seconds: int = 30
    ends_at: str | None = None
    keys_files: tuple[str, ...] = ()
    keys_required: bool = False
    rate_limit_per_minute: int = 0
    default_max_tokens: int = 0
    log_format: str = "text"
    poison: str = ""
    in_flight: str = ""
    media: MediaRules = field(default_factory=MediaRules)

    def as_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self), "keys_files": list(self.keys_files), "media": self.media.as_json()}

    @classmethod
    def from_json(cls, value: Any) -> GateConfig:
        """
        Raises:
            OpsError: a key is missing or its value is of the wrong kind; unknown keys are ignored.
        """
        if not isinstance(value, Mapping) or value.get("schema") != SCHEMA:
            raise bad(f'not an object with "schema": {SCHEMA}')
        ends_at = value.get("ends_at")
        if ends_at is not None and not (isinstance(ends_at, str) and HEADER_SAFE.fullmatch(ends_at)):
            # It becomes a response header, so nothing else than a time may be in it.
            raise bad(f"ends_at is {ends_at!r}, not a time")
        keys_files = value.get("keys_files")
        if not isinstance(keys_files, list) or not all(isinstance(path, str) for path in keys_files):
            raise bad(f"keys_files is {keys_files!r}, not a list of paths")
        return cls(
            max_body_bytes=whole(value, "max_body_bytes", least=1),
            audit=text(value, "audit"),
            state=text(value, "state"),
            draining=switch(value, "draining"),
            retry_after_seconds=whole(value, "retry_after_seconds", least=0),
            ends_at=ends_at,
            keys_files=tuple(keys_files),
            keys_required=switch(value, "keys_required"),
            rate_limit_per_minute=whole(value, "rate_limit_per_minute", least=0),
            default_max_tokens=whole(value, "default_max_tokens", least=0),
            log_format=one_of(value, "log_format", LOG_FORMATS),
            poison=text(value, "poison", may_be_empty=True),
            in_flight=text(value, "in_flight", may_be_empty=True),
            media=media(value),
        )


def read_config(path: Path) -> GateConfig:
    """
    Raises:
        OpsError: the file is missing, unreadable or not what the supervisor writes.
    """
    value = read_json(path)
    if value is None:
        raise OpsError(f"The gate's configuration {path} is missing", code="gate-config", fix="Start the service with: qwen-fp8 start")
    return GateConfig.from_json(value)


def whole(value: Mapping[str, Any], key: str, *, least: int) -> int:
    found = value.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or found < least:
        raise bad(f"{key} is {found!r}, not a whole number of at least {least}")
    return found


def switch(value: Mapping[str, Any], key: str) -> bool:
    found = value.get(key)
    if not isinstance(found, bool):
        raise bad(f"{key} is {found!r}, not true or false")
    return found


def one_of(value: Mapping[str, Any], key: str, words: tuple[str, ...]) -> str:
    found = value.get(key)
    if found not in words:
        raise bad(f"{key} is {found!r}, not {' or '.join(words)}")
    return str(found)


def text(value: Mapping[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not (found or may_be_empty):
        raise bad(f"{key} is {found!r}, not a path")
    return found


def media(value: Mapping[str, Any]) -> MediaRules:
    try:
        return MediaRules.from_json(value.get("media"))
    except TypeError as error:
        raise bad(f"media: {error}") from error


def bad(what: str) -> OpsError:
    return OpsError(f"The gate's configuration is not right: {what}", code="gate-config", fix="Write it anew with: qwen-fp8 restart")
