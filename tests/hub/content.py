"""What the local Hub holds: repositories, commits, files; each known by the hashes that the real Hub gives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

LARGE_NAMES = (".safetensors", ".bin", ".gguf")
LARGE_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """One file's content: bytes, or a file on disk that may be sparse and larger than memory. ``sha256`` may be given, to save the time of hashing."""

    source: bytes | Path
    large: bool
    known_sha256: str | None = None

    @cached_property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return self.known_sha256 or self._hash(hashlib.sha256())

    @cached_property
    def git_blob(self) -> str:
        if self.large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
            return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
        return self._hash(hashlib.sha1(b"blob %d\0" % self.size))

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git_blob

    def read(self, begin: int, count: int) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[begin : begin + count]
        with self.source.open("rb") as file:
            file.seek(begin)
            return file.read(count)

    def _hash(self, digest: hashlib._Hash) -> str:
        for begin in range(0, self.size, BLOCK_BYTES):
            digest.update(self.read(begin, BLOCK_BYTES))
        return digest.hexdigest()


@dataclass(frozen=True)
class Commit:
    files: Mapping[str, Blob]

    @cached_property
    def sha(self) -> str:
        text = "".join(f"{name}\0{blob.etag}\n" for name, blob in sorted(self.files.items()))
        return hashlib.sha1(text.encode()).hexdigest()


@dataclass
class Repository:
    """``main`` and other names point to commits; every commit that ever was stays, as on the real Hub."""

    commits: dict[str, Commit] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> Commit | None:
        return self.commits.get(self.names.get(revision, revision))


def make_commit(files: Mapping[str, bytes | Path | Blob]) -> Commit:
    """Large by name or size as on the Hub: those are known by sha256, the others by their git blob hash."""

    def blob(name: str, source: bytes | Path | Blob) -> Blob:
        if isinstance(source, Blob):
            return source
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        return Blob(source, large=name.endswith(LARGE_NAMES) or size >= LARGE_BYTES)

    return Commit({name: blob(name, source) for name, source in files.items()})
