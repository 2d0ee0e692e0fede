#!/usr/bin/env python3
"""Are the installed dependencies what they should be? Exits 0 when nothing speaks against them, 1 when something does.

    .venv/bin/python scripts/audit_dependencies.py [--json] [--offline] [--only NAME]... [--path FOLDER]... [--index-url URL] [--advisories-url URL]

Of every distribution in this environment: which extra of the project wants it, version, licence; whether its files are still those of its
wheel (hashes in RECORD); whether the index that pip uses has a newer release, or took the installed one back ("yanked"); known
vulnerabilities, if pip-audit is installed and its service answers. What could not be asked is said, and is no pass.

Against us speak changed or missing files, yanked releases and advisories; a newer release is only told. Not seen: files that no RECORD
knows of, byte code, and a change made together with its RECORD.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "scripts")]

from dependency_audit import advisories  # noqa: E402 - the path comes first
from dependency_audit.advisories import Advisories  # noqa: E402
from dependency_audit.index import Index, Told, pip_settings  # noqa: E402
from dependency_audit.installed import Installed, incomplete_extras, read_installed  # noqa: E402
from qwen_fp8_ops.errors import OpsError  # noqa: E402
from venv_setup.project import Project  # noqa: E402

OWN_NAME = "qwen-fp8-ops"
LONGEST_CELL = 60
OFFLINE = "not asked: --offline"
NOT_AMONG = "not asked: --only"


def main() -> int:
    options = arguments()
    path = options.path or list(dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))))
    project = Project.read(CHECKOUT)
    try:
        installed = read_installed(project, path, own_name=OWN_NAME)
        index = index_for(options)
    except OpsError as error:
        sys.stderr.write(f"Error: {error.message}\n  {error.fix}\n")
        return int(error.exit_code)
    told = {one.name: ask(index, one, options.only) for one in installed}
    found = Advisories(problem=OFFLINE) if options.offline else advisories.ask(path, options.advisories_url)
    result = {
        "schema": 1,
        "path": path,
        "distributions": [{**asdict(one), **asdict(told[one.name])} for one in installed],
        "extras_not_installed": incomplete_extras(project, (one.name for one in installed)),
        "index": {"url": index.shown_url if index else "", "asked": index is not None and not index.problem, "problem": index.problem if index else OFFLINE},
        "advisories": found.as_json(),
    }
    against = objections(result)
    result["ok"] = not against
    if index:
        index.close()
    print(json.dumps(result, indent=1) if options.json else text_of(result))
    for line in [*against, *unasked(result)]:
        sys.stderr.write(f"{line}\n")
    return 1 if against else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--offline", action="store_true", help="ask nobody: licences and integrity only")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="ask the index for this distribution only; may be repeated")
    parser.add_argument("--index-url", default="", metavar="URL", help="another index than the one that pip is configured for")
    parser.add_argument("--advisories-url", default="", metavar="URL", help="a mirror of the OSV query service, for pip-audit")
    parser.add_argument("--path", action="append", default=[], metavar="FOLDER", help="site-packages of another environment; may be repeated")
    return parser.parse_args()


def index_for(options: argparse.Namespace) -> Index | None:
    """
    Raises:
        OpsError: pip cannot say which index it uses.
    """
    if options.offline:
        return None
    settings = pip_settings(sys.executable)
    return Index(options.index_url or settings["index-url"], verify=settings.get("cert") or True, python=platform.python_version())


def ask(index: Index | None, one: Installed, only: list[str]) -> Told:
    if index is None:
        return Told(problem=OFFLINE)
    if only and one.name not in only:
        return Told(problem=NOT_AMONG)
    return index.ask(one.name, one.version)


def objections(result: dict[str, Any]) -> list[str]:
    """What speaks against the environment, a sentence each."""
    found = []
    for row in result["distributions"]:
        found += [f"{row['name']} {row['version']}: {fault}" for fault in row["faults"]]
        if row["yanked"]:
            found.append(f"{row['name']} {row['version']} was taken back by its authors: {row['yanked']}")
    for one in result["advisories"]["found"]:
        fix = f"fixed in {', '.join(one['fixed_in'])}" if one["fixed_in"] else "no fixed release is known"
        found.append(f"{one['name']} {one['version']}: {' '.join([one['id'], *one['aliases']])}; {fix}")
    return found


def unasked(result: dict[str, Any]) -> list[str]:
    """What this audit does not know."""
    found = []
    if result["index"]["problem"]:
        found.append(f"Newer and yanked releases are not known: {result['index']['problem']}")
    if not result["advisories"]["asked"]:
        found.append(f"Vulnerabilities are not known: {result['advisories']['problem']}")
    if result["extras_not_installed"]:
        found.append(f"Not installed here, so not judged: {', '.join(result['extras_not_installed'])}")
    return found


def text_of(result: dict[str, Any]) -> str:
    rows = [("distribution", "version", "newer", "for", "files", "licence")]
    for row in result["distributions"]:
        newer = "YANKED" if row["yanked"] else row["newest"] or ("?" if row["problem"] else "")
        rows.append(
            (row["name"], row["version"], newer, ",".join(row["wanted_by"]) or "-", "CHANGED" if row["faults"] else "whole", row["licence"][:LONGEST_CELL])
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


if __name__ == "__main__":
    sys.exit(main())
