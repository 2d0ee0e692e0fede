"""The secrets that this machine knows, gathered so that they can be taken out of everything else. They are never written anywhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.env_file import Entry, read_env_file
from qwen_fp8_ops.config.load import NOT_KEYS, PREFIX
from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.report.bundle.case import Case

SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|passphrase|credential|auth|cookie|private|signature|_pat$")
KEYS_FILE = "API_KEYS_FILE"
LARGEST_BYTES = 1 << 20


def is_secret_name(variable: str) -> bool:
    """Would the value of this environment variable, or of this line of config.env, be a secret? None of our own keys is one."""
    key = variable.removeprefix(PREFIX)
    if key in OPTIONS:
        return False
    if variable.startswith(PREFIX):
        return key not in NOT_KEYS  # a slip in the name of who knows what
    return bool(SECRET_NAME.search(variable))


def known_secrets(case: Case) -> frozenset[str]:
    """API keys, tokens of the Hub and of other services, passwords. What cannot be read gives none, and never raises."""
    entries = tuple(config_entries(case))
    found = {text for name, text in case.environ.items() if is_secret_name(name) and not os.path.exists(text)}
    found |= {entry.text for entry in entries if is_secret_name(entry.key)}
    for text in _named_keys_files(case, entries):
        path = case.paths.home / os.path.expanduser(text)
        found |= set(_keys_in(path))
        if "/" not in text and not path.exists():
            found.add(text)  # the key itself, where the name of its file belongs
    for path in (case.paths.keys, *_token_files(case.environ)):
        found |= set(_keys_in(path))
    return frozenset(secret.strip() for secret in found)


def config_entries(case: Case) -> Iterator[Entry]:
    """The lines of config.env that can be read; none when there is no file."""
    try:
        path = case.config_file
    except OpsError:
        return
    if path is not None:
        yield from read_env_file(path, path.name)


def _named_keys_files(case: Case, entries: Iterable[Entry]) -> Iterator[str]:
    """By the settings, which need not be right as a whole, and by what the last start recorded."""
    yield from (entry.text for entry in entries if entry.key == KEYS_FILE)
    yield from (text.removeprefix(f"{KEYS_FILE}=") for text in case.overrides if text.startswith(f"{KEYS_FILE}="))
    yield case.environ.get(PREFIX + KEYS_FILE, "")
    plan, gate = _recorded(case.paths.plan), _recorded(case.paths.gate)
    yield from (text for text in (plan.get("api_keys_file"), *_list(gate.get("keys_files"))) if isinstance(text, str))


def _keys_in(path: Path) -> Iterator[str]:
    """Whatever may be a key in a file of ``name:key`` or ``name = key`` lines, those in comments too, or of one token."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            return
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        name, colon, key = line.strip().lstrip("# ").partition(":")
        yield from (word for word in ((key,) if colon else (name, name.rpartition("=")[2])) if not re.search(r"\s", word.strip()))


def _token_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where huggingface_hub keeps a login."""
    home = Path(environ.get("HF_HOME") or Path(os.path.expanduser("~"), ".cache", "huggingface"))
    yield from (home / "token", home / "stored_tokens")
    if environ.get("HF_TOKEN_PATH"):
        yield Path(environ["HF_TOKEN_PATH"])


def _recorded(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
