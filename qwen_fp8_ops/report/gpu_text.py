"""The GPUs for a person: a bar each, who holds what, what our part consists of. From the objects of ``report.gpu_report``; no colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.report.screen import Screen
from qwen_fp8_ops.report.words import GIB, gib

MOST_CELLS = 80
FEWEST_CELLS = 6
WORTH_TELLING_BYTES = 512 << 20
"""Of memory that no process is shown for: the driver itself holds some hundred MiB of a busy GPU."""


@dataclass(frozen=True)
class Kind:
    """A part of a bar."""

    name: str
    mark: str
    ascii_mark: str


OURS = Kind("ours", "█", "#")
WEIGHTS = Kind("weights", "█", "#")
KV_CACHE = Kind("KV cache", "▓", "=")
REST = Kind("graphs, rest", "▒", "+")
OTHERS = Kind("others", "◆", "x")
UNSEEN = Kind("unattributed", "?", "?")
FREE = Kind("free", "·", ".")

Gpu = dict[str, Any]


def render_gpus(report: dict[str, Any], screen: Screen) -> list[str]:
    """
    Args:
        report: has `gpus`, `driver` and `distribution`, as `status --json` and `gpus --json` do.
    """
    if not report["gpus"]:
        return []
    ours = [gpu for gpu in report["gpus"] if gpu["ours"]]
    gpus = [*ours, *(gpu for gpu in report["gpus"] if not gpu["ours"])]
    rows = _rows(gpus, screen)
    lines = [headline(report), *rows[: len(ours)]]
    if len(ours) < len(gpus):
        lines += ["not ours to use:", *rows[len(ours) :]]
    lines += _legend(gpus, screen)
    lines += [line for gpu in gpus for line in _holders(gpu, screen)]
    return [*lines, *_notes(gpus), *_shares(gpus, report["distribution"])]


def headline(report: dict[str, Any]) -> str:
    gpus, driver = report["gpus"], report["driver"] or {}
    names = list(dict.fromkeys(gpu["name"] for gpu in gpus if gpu["name"])) or ["GPU"]
    words = [f"{len(gpus)} x {' and '.join(names)}"]
    if driver.get("version"):
        words.append(f"driver {driver['version']}")
    if driver.get("cuda_version"):
        words.append(f"CUDA up to {driver['cuda_version']}")
    if driver.get("source") == "nvidia-smi":
        words.append("read from nvidia-smi: NVML does not answer")
    return ", ".join(words)


def _rows(gpus: Sequence[Gpu], screen: Screen) -> list[str]:
    """A bar for each, all of one length; ``!`` marks a GPU whose problem is told below."""
    ranks = [_ranks(gpu) for gpu in gpus]
    rank_width = max(map(len, ranks), default=0)
    heads = [f"GPU {gpu['index']:<2}{'!' if gpu['problems'] else ' '}" for gpu in gpus]
    tails = [_tail(gpu, f"{rank:<{rank_width}}", screen) for gpu, rank in zip(gpus, ranks, strict=True)]
    taken = max(map(len, heads), default=0) + max((len(tail or "") for tail in tails), default=0) + len("[]")
    cells = min(MOST_CELLS, max(FEWEST_CELLS, screen.width - taken))
    return [
        f"{head} {'; '.join(gpu['problems']) or 'no memory reading'}" if tail is None else f"{head}[{bar(gpu, cells, screen)}]{tail}"
        for gpu, head, tail in zip(gpus, heads, tails, strict=True)
    ]


def _ranks(gpu: Gpu) -> str:
    ranks = gpu["ranks"]
    return f" rank{'s' if len(ranks) > 1 else ''} {','.join(map(str, ranks))}" if ranks else ""


def _tail(gpu: Gpu, ranks: str, screen: Screen) -> str | None:
    """Memory, ranks, load, temperature, power; None without a reading of the memory."""
    total, used = gpu["memory_total_bytes"], gpu["memory_used_bytes"]
    if not total or used is None:
        return None
    text = f" {used / GIB:5.1f} of {total / GIB:.1f} GiB{ranks}"
    for value, unit in ((gpu["utilization_percent"], " %"), (gpu["temperature_celsius"], " °C" if screen.unicode else " C"), (gpu["power_watts"], " W")):
        text += f"{value:4.0f}{unit}" if value is not None else " " * (4 + len(unit))
    return text.rstrip()


def bar(gpu: Gpu, cells: int, screen: Screen) -> str:
    """Each part gets the cells that its bytes make; where others hold anything at all, one of them shows it."""
    total, filled, text = gpu["memory_total_bytes"], 0, ""
    for kind, size in segments(gpu):
        filled += size
        end = min(cells, round(filled / total * cells))
        count = max(end - len(text), 1 if kind is OTHERS and len(text) < cells else 0)
        text += mark(kind, screen) * count
    return text + mark(FREE, screen) * (cells - len(text))


def segments(gpu: Gpu) -> list[tuple[Kind, int]]:
    """The parts that are in use, from the left."""
    parts = gpu["parts"]
    if parts:
        own = [(WEIGHTS, parts["weights_bytes"]), (KV_CACHE, parts["kv_cache_bytes"]), (REST, parts["graphs_bytes"] + parts["rest_bytes"])]
    else:
        own = [(OURS, gpu["own_bytes"])]
    return [(kind, size) for kind, size in [*own, (OTHERS, gpu["foreign_bytes"]), (UNSEEN, gpu["unattributed_bytes"] or 0)] if size]


def mark(kind: Kind, screen: Screen) -> str:
    return kind.mark if screen.unicode else kind.ascii_mark


def _legend(gpus: Sequence[Gpu], screen: Screen) -> list[str]:
    used = {kind for gpu in gpus if gpu["memory_total_bytes"] for kind, _ in segments(gpu)}
    if not used:
        return []
    order = (OURS, WEIGHTS, KV_CACHE, REST, OTHERS, UNSEEN, FREE)
    return ["        " + "  ".join(f"{mark(kind, screen)} {kind.name}" for kind in order if kind in used or kind is FREE)]


def _holders(gpu: Gpu, screen: Screen) -> Iterator[str]:
    """Who else is on it. A pid that this namespace does not have is shown all the same: its memory is gone for us."""
    for process in gpu["processes"]:
        if process["ours"]:
            continue
        command = _plain(process["command"] or "", screen) if process["user"] else "no such pid is in this namespace"
        held = gib(process["memory_bytes"]) if process["memory_bytes"] is not None else "? GiB"
        line = f"GPU {gpu['index']}: pid {process['pid']} ({process['user'] or '?'}) holds {held}: {command}"
        yield line if len(line) <= screen.width else line[: screen.width - 3] + "..."
    if (gpu["unattributed_bytes"] or 0) >= WORTH_TELLING_BYTES:
        yield f"GPU {gpu['index']}: {gib(gpu['unattributed_bytes'])} held by no process that can be seen from here"


def _plain(command: str, screen: Screen) -> str:
    """Anybody may write what he likes into the title of his process: nothing of it moves our cursor."""
    text = "".join(letter if letter.isprintable() else "?" for letter in command) or "?"
    return text if screen.unicode else text.encode("ascii", "replace").decode()


def _notes(gpus: Sequence[Gpu]) -> Iterator[str]:
    by_note: dict[str, list[int]] = {}
    for gpu in gpus:
        for note in gpu["notes"]:
            by_note.setdefault(note, []).append(gpu["index"])
    for note, indexes in by_note.items():
        yield f"GPU {','.join(map(str, indexes))}: {note}"


def _shares(gpus: Sequence[Gpu], distribution: dict[str, Any] | None) -> Iterator[str]:
    """What our part of the fullest GPU consists of, how even the ranks are, and how that is beside the plan."""
    known = [gpu for gpu in gpus if gpu["parts"]]
    if known:
        fullest = max(known, key=lambda gpu: int(gpu["own_bytes"]))
        parts = fullest["parts"]
        words = [
            f"{name} {parts[key] / GIB:.2f}"
            for name, key in (("weights", "weights_bytes"), ("KV cache", "kv_cache_bytes"), ("graphs", "graphs_bytes"), ("rest", "rest_bytes"))
        ]
        yield f"rank {','.join(map(str, fullest['ranks']))} holds {gib(fullest['own_bytes'])}: {', '.join(words)}"
    if distribution and distribution["imbalance_percent"] is not None:
        yield f"the fullest rank holds {distribution['imbalance_percent']:g} % more than the emptiest"
    if distribution and distribution["against_plan"]:
        yield "against the plan: " + ", ".join(_compared(part) for part in distribution["against_plan"])


def _compared(part: dict[str, Any]) -> str:
    difference = part["difference_percent"]
    return f"{part['part']} {part['bytes'] / GIB:.2f} for {part['planned_bytes'] / GIB:.2f}" + (f" ({difference:+.1f} %)" if difference is not None else "")
