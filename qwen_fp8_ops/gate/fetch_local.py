"""Files of our own media server, read where they lie instead of asked for over HTTP: by the same rules on names and links."""

from __future__ import annotations

import os
from pathlib import Path

from qwen_fp8_ops.gate.fetch_answer import MediaProblem, too_large
from qwen_fp8_ops.outside.jail import Jail, read_target


def read_local(root: str, target: bytes, most_bytes: int) -> bytes:
    """The file that a request target (path and query) means, as the media server would send it.

    Raises:
        MediaProblem: there is none under the root, or it is larger than the limit.
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
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(most_bytes + 1)  # and not its size first: a file may grow
    if len(data) > most_bytes:
        raise too_large(most_bytes)
    return data
