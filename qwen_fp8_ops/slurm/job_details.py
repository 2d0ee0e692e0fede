"""What ``scontrol -d show job`` tells of one job. It is asked for many lines and not for one (``-o``): a job's name, comment and
folders may hold anything, but no line break, so a key at the beginning of a line is SLURM's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qwen_fp8_ops.slurm import parse

TO_END_OF_LINE = frozenset({"WorkDir", "Comment", "StdOut", "Command"})
"""Keys with a line of their own, whose value may hold spaces."""
GPUS = re.compile(r"gpu(?::[^:(,]+)?(?::\d+)?\(IDX:([\d,-]+)\)", re.ASCII)


@dataclass(frozen=True)
class JobDetails:
    """``gpu_indices``: the node's own numbers of the GPUs, for each node of the job. ``ends_at`` is ISO 8601 in UTC."""

    state: str
    partition: str | None
    nodes: tuple[str, ...]
    batch_host: str | None
    cpus: int | None
    memory_bytes: int | None
    gpus: int | None
    gpu_indices: dict[str, tuple[int, ...]]
    ends_at: str | None


def job_details(text: str) -> JobDetails | None:
    """None when the text is no job."""
    if not text.startswith("JobId="):
        return None
    facts: dict[str, str] = {}
    indices: dict[str, tuple[int, ...]] = {}
    for line in text.splitlines()[1:]:
        words = line.strip()
        key, _, value = words.partition("=")
        if key in TO_END_OF_LINE:
            facts[key] = value
        elif key == "Nodes":
            indices |= _gpus_of_nodes(words)
        else:
            for word in words.split():
                key, _, value = word.partition("=")
                facts.setdefault(key, value)
    # AllocTRES since 23.02, TRES before; neither counts GPUs or memory unless the site accounts for them.
    resources = dict(part.split("=", 1) for part in (facts.get("AllocTRES") or facts.get("TRES") or "").split(",") if "=" in part)
    return JobDetails(
        state=facts.get("JobState", ""),
        partition=_known(facts.get("Partition")),
        nodes=parse.hosts(facts.get("NodeList")),
        batch_host=_known(facts.get("BatchHost")),
        cpus=parse.whole(facts.get("NumCPUs")),
        memory_bytes=parse.memory_bytes(resources.get("mem")) or parse.memory_bytes(facts.get("MinMemoryNode")),
        gpus=sum(map(len, indices.values())) or parse.whole(resources.get("gres/gpu")),
        gpu_indices=indices,
        ends_at=parse.moment(facts.get("EndTime")),
    )


def _gpus_of_nodes(line: str) -> dict[str, tuple[int, ...]]:
    """``Nodes=node[1-2] CPU_IDs=0-7 Mem=0 GRES=gpu:h100:4(IDX:0-3)``; before 20.02 the key was GRES_IDX. Types share a line."""
    found = tuple(index for span in GPUS.findall(line) for index in parse.indices(span))
    return dict.fromkeys(parse.hosts(line.split(maxsplit=1)[0].partition("=")[2]), found) if found else {}


def _known(text: str | None) -> str | None:
    return None if text in (None, "", "(null)", "N/A") else text
