"""Known vulnerabilities of what is installed: asked of an advisory service by pip-audit, where that is installed and the service answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SECONDS = 600
"""It asks for one distribution after the other."""


@dataclass(frozen=True)
class Advisory:
    name: str
    version: str
    id: str
    aliases: tuple[str, ...]
    fixed_in: tuple[str, ...]


@dataclass(frozen=True)
class Advisories:
    """``problem`` is why nobody could be asked; ``found`` then says nothing."""

    found: tuple[Advisory, ...] = ()
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"asked": not self.problem, "problem": self.problem, "found": [asdict(one) for one in self.found]}


def ask(path: Sequence[str], service_url: str = "") -> Advisories:
    """
    Args:
        path: folders with distributions.
        service_url: of a mirror of the OSV query service; empty: what pip-audit asks by itself.
    """
    program = find_program()
    if program is None:
        return Advisories(problem="pip-audit is not installed (pipx install pip-audit), so no advisory service was asked")
    argv = [program, "--format", "json", "--desc", "off", "--aliases", "on", "--progress-spinner", "off"]
    argv += [word for folder in path for word in ("--path", folder)]
    argv += ["--vulnerability-service", "osv", "--osv-url", service_url] if service_url else []
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Advisories(problem=f"pip-audit failed: {error}")
    return read(done.stdout, done.stderr)


def read(output: str, errors: str) -> Advisories:
    """It exits 1 both where it found something and where it failed; only its JSON tells them apart."""
    try:
        rows = json.loads(output)["dependencies"]
        found = [
            Advisory(row["name"], row["version"], one["id"], tuple(one.get("aliases", ())), tuple(one.get("fix_versions", ())))
            for row in rows
            for one in row.get("vulns", ())
        ]
    except (ValueError, KeyError, TypeError):
        said = [line.strip() for line in errors.splitlines() if line.strip()]
        return Advisories(problem=f"the advisory service could not be asked: {said[-1][:300] if said else 'pip-audit said nothing'}")
    return Advisories(tuple(found))


def find_program() -> str | None:
    beside = Path(sys.executable).with_name("pip-audit")
    return str(beside) if beside.exists() else shutil.which("pip-audit")
