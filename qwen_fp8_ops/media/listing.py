"""What is in a folder, for people (HTML) and for programs (JSON). Only what could be fetched is named."""

from __future__ import annotations

import html
import json
import os
import stat
from dataclasses import dataclass
from urllib.parse import quote

from qwen_fp8_ops.media import kinds
from qwen_fp8_ops.media.message import in_calendar
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.jail import ABSENT, Jail, is_public

MOST_ENTRIES = 20_000
"""A page longer than this helps nobody, and reading it must not hold the server up."""

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:left}tr:hover{background:#8882}"
    "td+td,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}td:first-child{word-break:break-all}"
)


@dataclass(frozen=True)
class Entry:
    """``name`` is as the file system has it, undecodable bytes included."""

    name: str
    is_folder: bool
    size_bytes: int
    modified_seconds: float

    @property
    def shown(self) -> str:
        return _shown(self.name)

    @property
    def link(self) -> str:
        """Relative to the folder; the leading ./ keeps a name such as ``a:b`` from looking like a scheme."""
        return f"./{quote(os.fsencode(self.name))}{'/' if self.is_folder else ''}"


@dataclass(frozen=True)
class Folder:
    """``path`` begins and ends with a slash; ``truncated`` says that there are more entries than these."""

    path: str
    entries: list[Entry]
    truncated: bool


def read_folder(jail: Jail, path: str) -> Folder | None:
    """The folder at a path from ``jail.read_target``: folders first, by name; None when it is gone or not readable.

    Raises:
        OSError: this machine is in trouble.
    """
    found = jail.look(path)
    if found is None:
        return None
    with found:
        if not found.is_folder:
            return None
        try:
            descriptor = found.open()
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise
    entries: list[Entry] = []
    truncated = False
    try:
        with os.scandir(descriptor) as scan:
            for item in scan:
                entry = _entry(jail, path, item) if is_public(item.name) else None
                if entry is None:
                    continue
                if len(entries) == MOST_ENTRIES:
                    truncated = True
                    break
                entries.append(entry)
    finally:
        os.close(descriptor)
    entries.sort(key=lambda entry: (not entry.is_folder, entry.name.casefold(), entry.name))
    return Folder(f"/{path}", entries, truncated)


def _entry(jail: Jail, path: str, item: os.DirEntry[str]) -> Entry | None:
    """None for what cannot be fetched: a link that leaves the root, a device, a file that went away meanwhile."""
    if item.is_symlink():
        found = jail.look(path + item.name)
        if found is None:
            return None
        with found:
            status = found.stat
    else:
        try:
            status = item.stat(follow_symlinks=False)
        except OSError:
            return None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None
    is_folder = stat.S_ISDIR(status.st_mode)
    return Entry(item.name, is_folder, 0 if is_folder else status.st_size, in_calendar(status.st_mtime))


def as_json(folder: Folder) -> bytes:
    entries = []
    for entry in folder.entries:
        about: dict[str, str | int] = {
            "name": entry.shown,
            "type": "folder" if entry.is_folder else "file",
            "url": entry.link,
            "modified": clock.iso(entry.modified_seconds),
        }
        if not entry.is_folder:
            about |= {"size_bytes": entry.size_bytes, "content_type": kinds.content_type(entry.name)}
        entries.append(about)
    return json.dumps({"schema": 1, "path": _shown(folder.path), "truncated": folder.truncated, "entries": entries}, ensure_ascii=False).encode() + b"\n"


def as_html(folder: Folder) -> bytes:
    title = html.escape(_shown(folder.path))
    rows = ['<tr><td><a href="../">../</a><td><td>'] if folder.path != "/" else []
    for entry in folder.entries:
        name = html.escape(entry.shown) + ("/" if entry.is_folder else "")
        size = "" if entry.is_folder else human_size(entry.size_bytes)
        date = clock.iso(entry.modified_seconds)[:16].replace("T", " ")
        rows.append(f'<tr><td><a href="{html.escape(entry.link)}">{name}</a><td>{size}<td>{date}')
    note = f"<p>Only {MOST_ENTRIES:,} entries are shown." if folder.truncated else "" if folder.entries else "<p>This folder is empty."
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><table><tr><th>Name<th>Size<th>Changed (UTC)\n" + "\n".join(rows) + f"</table>{note}\n"
    )
    return page.encode()


def human_size(size_bytes: int) -> str:
    """``812 B``, ``4.1 kB``, ``240 GB``: three digits, steps of 1000."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size, units = size_bytes / 1000, ["TB", "GB", "MB", "kB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.1f} {units[-1]}" if size < 99.95 else f"{size:.0f} {units[-1]}"


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
