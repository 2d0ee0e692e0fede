"""Files of our own media server, read where they lie instead of asked for over HTTP: by the same rules on names and links."""

from __future__ import annotations

import os
from pathlib import Path

from qwen_fp8_ops.gate.fetch_answer import MediaProblem, Wanted, too_large
from qwen_fp8_ops.outside.jail import Jail, read_target

PIECE_BYTES = 4 << 20


def read_local(root: str, target: bytes, wanted: Wanted) -> bytes:
    """The file that a request target (path and query) means, as the media server would send it.

    Raises:
        MediaProblem: there is none under the root, or it is larger than the limit.
        SpentError: with it the request's media are more than all of them may be.
        OSError: the disk fails.
    """
    path = read_target(target)
    found = Jail(Path(root)).look(path) if path else None
    if found is None:
        raise MediaProblem("there is no such file in our media server's folder")
    with found:
        if not found.is_file:
            raise MediaProblem("that is no file")
        descriptor = found.open()
    pieces: list[bytes] = []
    size = 0
    with os.fdopen(descriptor, "rb") as file:
        while piece := file.read(PIECE_BYTES):  # and not its size first: a file may grow
            size += len(piece)
            if size > wanted.most_bytes:
                raise too_large(wanted.most_bytes)
            wanted.budget.spend(len(piece))
            pieces.append(piece)
    return b"".join(pieces)
