"""Keys with names: files of ``name:key`` lines that only their owner may read."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from qwen_fp8_ops.errors import OpsError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
KEY = re.compile(r"[!-~]{8,512}")
MAX_FILE_BYTES = 1 << 20
SUPERVISOR = "supervisor"
"""The name of the key that the supervisor makes anew at each start. Its probes are neither limited nor in the audit."""


def read_keys(path: Path, *, own: bool = False) -> dict[str, str]:
    """The keys of one file by name. Empty lines and lines that begin with # are skipped; a key may hold colons.

    Args:
        own: it is the file that the supervisor writes. No key of another may bear its name.

    Raises:
        OpsError: missing, unreadable, not a plain file, readable by others, or a line is not ``name:key`` (code ``bad-keys-file``).
            No message ever holds a key.
    """
    keys: dict[str, str] = {}
    for number, raw in enumerate(private_text(path).splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, _, key = line.partition(":")
        if not NAME.fullmatch(name) or not KEY.fullmatch(key):
            raise bad(
                f"Line {number} of {path} is not name:key (a name of letters, digits and . _ @ -, a key of 8 to 512 characters without spaces)", f"Edit {path}"
            )
        if name == SUPERVISOR and not own:
            raise bad(f"Line {number} of {path} gives the name {name}, which is the service's own", f"Edit {path}: another name")
        if name in keys:
            raise bad(f"Line {number} of {path} gives the name {name} a second time", f"Edit {path}: each name once")
        if key in keys.values():
            raise bad(f"Line {number} of {path} gives {name} a key that another name has", f"Edit {path}: each key once")
        keys[name] = key
    return keys


def private_text(path: Path) -> str:
    """The file's text, when nobody but its owner may read it.

    The checks are made on the open file, so that what was checked is what is read; O_NONBLOCK keeps a pipe from hanging us.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
                raise bad(f"The keys file {path} is not a plain file of at most {MAX_FILE_BYTES} bytes", "Give API_KEYS_FILE the path of a text file")
            if found.st_mode & 0o077:
                raise bad(f"The keys file {path} is open to others (mode {found.st_mode & 0o777:04o})", f"chmod 600 {shlex.quote(str(path))}")
            return file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad(f"The keys file {path} is not UTF-8 text", f"Edit {path}") from error
    except OSError as error:
        raise bad(f"The keys file {path} cannot be read: {error.strerror}", f"ls -l '{path}'") from error


class KeyRing:
    """The keys that open the gate, as hashes.

    Hashing both sides makes them equally long, and every key is compared in constant time on every request: how long an
    answer takes tells nothing about any key.
    """

    def __init__(self, names_by_key: Mapping[str, str]) -> None:
        self._entries = [(hashlib.sha256(key.encode()).digest(), name) for key, name in names_by_key.items()]

    def owner(self, authorization: bytes | None, api_key: bytes | None) -> str | None:
        """The name of the key given in ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; None when neither holds one of ours."""
        name = None
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            name = self._find(authorization[7:].strip())
        if name is None and api_key is not None:
            name = self._find(api_key.strip())
        return name

    def _find(self, key: bytes) -> str | None:
        given = hashlib.sha256(key).digest()
        found = None
        for known, name in self._entries:
            if hmac.compare_digest(known, given):
                found = name
        return found


def bad(message: str, fix: str) -> OpsError:
    return OpsError(message, code="bad-keys-file", fix=fix)
