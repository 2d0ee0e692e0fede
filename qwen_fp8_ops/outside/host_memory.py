"""How much of the host's memory this process, and the page cache it fills, may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_bytes(cgroup_root: Path = CGROUP, memberships: str | None = None) -> int:
    """Free and reclaimable memory, or what the control group's limit leaves of it: SLURM bounds a job's memory in this way.

    As `free --bytes` (column available) and `cat /sys/fs/cgroup/.../memory.max`.
    """
    available: int = psutil.virtual_memory().available
    left = _left_in_group(cgroup_root, _own_groups() if memberships is None else memberships)
    return available if left is None else min(available, left)


def total_bytes() -> int:
    """As `free --bytes` (column total)."""
    total: int = psutil.virtual_memory().total
    return total


def oom_kills(cgroup_root: Path = CGROUP, memberships: str | None = None) -> int:
    """Processes of our control group that the kernel has ended for want of memory, so far; 0 where it does not count them.

    As `grep oom_kill /sys/fs/cgroup/.../memory.events` (cgroup v1: memory.oom_control).
    """
    for line in (_own_groups() if memberships is None else memberships).splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            file = cgroup_root / path.strip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = cgroup_root / "memory" / path.strip("/") / "memory.oom_control"
        else:
            continue
        try:
            found = [words[1] for text in file.read_text().splitlines() if len(words := text.split()) == 2 and words[0] == "oom_kill"]
        except OSError:
            continue
        if found and found[0].isdigit():
            return int(found[0])
    return 0


def _own_groups() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def _left_in_group(root: Path, memberships: str) -> int | None:
    """What the tightest group on the way up leaves; None without a limit. Pages of files do not count as used: they can go."""
    left: list[int] = []
    for line in memberships.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            top, names = root, ("memory.max", "memory.current", "file")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
        else:
            continue
        folder = top / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            limit, used = _number(group / names[0]), _number(group / names[1])
            if limit is not None and used is not None:
                left.append(max(0, limit - used + _statistic(group, names[2])))
    return min(left, default=None)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _statistic(group: Path, name: str) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
