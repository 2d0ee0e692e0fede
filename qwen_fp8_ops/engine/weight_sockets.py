"""How a weight cache is: each of its ranks listens on a socket, on which engines ask it for weights, and we ask for less.

As in vLLM 0.32 (``model_loader/weight_cache/protocol.py``): a length of eight bytes, then a pickle, both ways. A rank listens when it has
all its weights, and takes one visitor at a time. What it answers is looked at and not unpickled.
"""

from __future__ import annotations

import pickle
import socket
import struct
from pathlib import Path

PATTERN = "vllm_weight_cache_*.sock"
QUESTION = pickle.dumps({"cmd": "get_memory"})
ANSWER = b"memory_bytes"
LENGTH = struct.Struct("!Q")
MOST_BYTES = 1 << 16
GLANCE_SECONDS = 2.0


def problem(folder: Path, ranks: int) -> str:
    """Why not all of so many ranks listen; empty when they do. A rank that is busy or frozen listens too."""
    sockets = sorted(folder.glob(PATTERN))
    if len(sockets) < ranks:
        return f"{len(sockets)} of {ranks} ranks have their weights"
    deaf = [path for path in sockets if not _listens(path)]
    return f"{len(deaf)} of {len(sockets)} ranks do not listen any more" if deaf else ""


def answers(folder: Path, seconds: float) -> str:
    """Ask each rank how much it holds, with so much patience for each; what is wrong, or nothing.

    Raises:
        TimeoutError: one is silent. It may be busy, with an engine that asks for the weights.
    """
    for path in sorted(folder.glob(PATTERN)):
        try:
            if ANSWER not in _ask(path, seconds):
                return f"{path.name} answers, but not what was asked"
        except (TimeoutError, BlockingIOError) as error:
            raise TimeoutError(f"{path.name} is silent") from error
        except OSError as error:
            return f"{path.name} does not answer: {error.strerror or error}"
    return ""


def _listens(path: Path) -> bool:
    """A visitor who says nothing would do, but vLLM logs each of those."""
    try:
        _ask(path, GLANCE_SECONDS)
    except (TimeoutError, BlockingIOError):
        return True  # busy, or so many visitors wait that there is no room for another
    except OSError:
        return False
    return True


def _ask(path: Path, seconds: float) -> bytes:
    """
    Raises:
        TimeoutError: no answer so soon.
        OSError: nobody listens, or the connection broke off.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.settimeout(seconds)
        visitor.connect(str(path))
        visitor.sendall(LENGTH.pack(len(QUESTION)) + QUESTION)
        (length,) = LENGTH.unpack(_exactly(visitor, LENGTH.size))
        return _exactly(visitor, min(length, MOST_BYTES))


def _exactly(visitor: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = visitor.recv(count - len(found))
        if not part:
            raise ConnectionError("it hung up")
        found += part
    return found
