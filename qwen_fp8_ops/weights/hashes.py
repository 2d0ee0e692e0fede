"""The two hashes by which the Hub knows a file, over bytes that pass by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from qwen_fp8_ops.weights.hub import HubFile

BLOCK_BYTES = 1 << 20


class Hashes:
    """sha256 of everything; the git blob hash where the Hub gives only that. Bytes are hashed once, as they come."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = None if file.sha256 else hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
        self.count = 0

    def update(self, block: bytes) -> None:
        self._sha256.update(block)
        if self._git is not None:
            self._git.update(block)
        self.count += len(block)

    def read(self, path: Path, step: Callable[[int], None]) -> None:
        """Hash a file's content; ``step`` hears of the bytes as they pass.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                self.update(block)
                step(len(block))

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def git_blob(self) -> str | None:
        return self._git.hexdigest() if self._git else None

    @property
    def right(self) -> bool:
        """Is this what the Hub has?"""
        return self.count == self._file.bytes and self._file.digest == (self.git_blob or self.sha256)
