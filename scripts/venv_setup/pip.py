"""pip of .venv: what it does is told in a few lines, logged in full, and its failures come with a remedy."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from venv_setup.child import Outcome, run

Say = Callable[[str], None]

WORTH_TELLING_MB = 20
TAIL_LINES = 15
NO_SUCH_VERSION = "No matching distribution found"

# Would send packages somewhere else than into .venv, or take them from another Python.
HARMFUL = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_REQUIRE_HASHES", "PYTHONPATH", "PYTHONHOME")

REMEDIES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|Errno 28|Disk quota exceeded",
        "no space left on the disk",
        "Make room (`df -h .`; an engine needs 4 to 12 GB) and run it again: it goes on where it stopped.",
    ),
    (
        r"ProxyError|Tunnel connection failed|Cannot connect to proxy",
        "the proxy refuses",
        "Check HTTPS_PROXY and NO_PROXY, or tell pip: pip config set global.proxy http://user@host:port",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "a certificate is not trusted",
        "Behind a proxy that re-signs traffic, give pip its certificate: export PIP_CERT=/path/to/ca.pem",
    ),
    (
        r"NewConnectionError|Temporary failure in name resolution|Name or service not known|ConnectTimeout|Read timed out|Network is unreachable|Connection refused",
        "the package index cannot be reached",
        "Check the network, or name a mirror: pip config set global.index-url https://mirror/simple\n"
        "A compute node without internet: run this set-up on the login node first, the .venv is shared.",
    ),
    (r"Permission denied|Read-only file system", "files cannot be written", "Check who owns .venv and whether the file system is writable: ls -ld . .venv"),
    (
        r"from versions: none",
        "the package index knows nothing of that name, or cannot be reached",
        "Check the network and the mirrors that pip uses: pip config list ; pip config set global.index-url https://pypi.org/simple",
    ),
    (
        NO_SUCH_VERSION,
        "a package does not exist for this Python or platform",
        "Linux on x86_64 or aarch64 with Python 3.11 to 3.13 is what the engines are built for.",
    ),
)


def diagnose(outcome: Outcome) -> tuple[str, str]:
    """Why pip failed, in words, and what to do; the words are empty when we cannot tell."""
    if outcome.returncode < 0:
        return f"it was killed by signal {-outcome.returncode}", "For want of memory? See `dmesg | tail`. Run it again: it goes on where it stopped."
    for pattern, why, fix in REMEDIES:
        if re.search(pattern, outcome.output):
            return why, fix
    return "", ""


@dataclass(frozen=True)
class Pip:
    """pip of one environment, run in the checkout with the user's own pip configuration."""

    python: Path
    root: Path
    log: Path
    temporary: Path
    environ: Mapping[str, str]
    say: Say

    def install(self, *arguments: str) -> None:
        """
        Raises:
            OpsError: pip failed; the message shows the end of what it said.
        """
        outcome = self.try_install(*arguments)
        if not outcome.ok:
            raise self.failure(outcome)

    def try_install(self, *arguments: str) -> Outcome:
        return self("install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", *arguments)

    def __call__(self, *arguments: str) -> Outcome:
        argv = [str(self.python), "-I", "-m", "pip", *arguments]
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(argv)}\n")

            def on_line(line: str) -> None:
                log.write(line + "\n")
                log.flush()
                news = _news(line)
                if news:
                    self.say(f"      {news}")

            return run(argv, cwd=self.root, environ=self._environment(), on_line=on_line)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in self.environ.items() if name not in HARMFUL}
        # A site's pip.conf may say `user = true`, which fails in an environment. Downloads wait beside .venv and not in /tmp,
        # which is small on many nodes; what a killed pip left there goes with the next set-up.
        return kept | {"PIP_USER": "0", "PYTHONUNBUFFERED": "1", "TMPDIR": str(self.temporary)}

    def failure(self, outcome: Outcome) -> OpsError:
        why, fix = diagnose(outcome)
        tail = [line for line in outcome.output.splitlines() if line.strip() and not line.startswith("WARNING: Location")][-TAIL_LINES:]
        shown = "\n".join(f"    {line}" for line in tail)
        message = f"pip failed{': ' + why if why else ''} (exit code {outcome.returncode})\n{shown}"
        return OpsError(message, code="setup-failed", fix=f"{fix}\nAll that pip said is in {os.path.relpath(self.log, self.root)}.".strip())


def _news(line: str) -> str:
    """What a person waiting wants to know of pip's lines; empty for the rest."""
    match = re.match(r"\s*(?:Downloading|Using cached) (\S+?)\.(?:whl|tar\.gz) \(([\d.]+) (MB|GB)\)", line)
    if match:
        megabytes = float(match[2]) * (1024 if match[3] == "GB" else 1)
        name = "-".join(os.path.basename(match[1]).split("-")[:2])
        return f"{name}, {megabytes:.0f} MB" if megabytes >= WORTH_TELLING_MB else ""
    match = re.match(r"Installing collected packages: (.+)", line)
    if match:
        count = match[1].count(",") + 1
        return f"unpacking {count} packages" if count > 1 else f"unpacking {match[1]}"
    return ""
