"""Signs in the engine's log: what the dying engine says of itself, and at times what it said shortly before."""

from __future__ import annotations

import re
from collections.abc import Callable

from qwen_fp8_ops.engine.failures.rule import MOST_EVIDENCE, Seen, Signs
from qwen_fp8_ops.engine.failures.scene import DIED, Scene
from qwen_fp8_ops.engine.root_cause import SILENT


def says(pattern: str, *, only: Callable[[Scene], bool] = lambda scene: True) -> Seen:
    """Does the dying engine say so of itself? Named groups of the pattern become parts of the signs."""
    wanted = re.compile(pattern)

    def seen(scene: Scene) -> Signs | None:
        lines = [line for line in scene.complaints if wanted.search(line)]
        if not lines or not only(scene):
            return None
        found = wanted.search(lines[0])
        assert found is not None
        return Signs(tuple(lines[:MOST_EVIDENCE]), {name: text for name, text in found.groupdict().items() if text is not None})

    return seen


def together(*several: Seen) -> Seen:
    """The first of them that sees its signs."""

    def seen(scene: Scene) -> Signs | None:
        return next((signs for one in several if (signs := one(scene))), None)

    return seen


def file_damaged(pattern: str) -> Seen:
    """A file of the checkpoint could not be read; which one vLLM seldom says, so the files are looked at."""
    wanted = re.compile(pattern)

    def seen(scene: Scene) -> Signs | None:
        lines = [line for line in scene.complaints if wanted.search(line)]
        if not lines:
            return None
        bad = scene.bad_files()
        return Signs(tuple(lines[:MOST_EVIDENCE]), {"files": "; ".join(bad[:MOST_EVIDENCE]) or "which one, only their hashes can tell"})

    return seen


def port_taken(scene: Scene) -> Signs | None:
    line = next((line for line in scene.complaints if "Address already in use" in line or "[Errno 98]" in line), None)
    if line is None:
        return None
    owner = scene.port_owner()
    return Signs((line,), {"port": str(scene.settings.port), "who": f" by {owner}" if owner else ", or was until just now"})


def stalled(scene: Scene) -> Signs | None:
    """A step that took too long, after the engine core waited in vain for its workers. The waiting alone is no sign: it does so
    during every long compilation.
    """
    late = [line for line in scene.complaints if re.search(r"RPC call to \S+ timed out", line)]
    waiting = [line.strip() for line in scene.log if "No available shared memory broadcast block found" in line]
    return Signs((late[0], *waiting[-1:])) if late else None


def killed(scene: Scene) -> Signs | None:
    """A process ended without a word; what is quoted is how the others noticed."""
    said = scene.complaints
    if SILENT not in said and not any(DIED in line for line in said):
        return None
    return Signs(tuple(line for line in said if line != SILENT)[:MOST_EVIDENCE])


def nothing_else(scene: Scene) -> Signs:
    """What the log says of itself, or its last lines. Always a sign. A signal speaks for itself where the log adds nothing."""
    headline = "" if scene.returncode < 0 and not scene.root.told else scene.root.headline
    return Signs(scene.root.lines[: MOST_EVIDENCE + 2], {"headline": headline})
