"""Where a client verb sends its requests: to the service of this folder, or to an address it was given.

The client room knows an address, a model's name and a key, and nothing of run folders; here is where it gets them from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwen_fp8_ops.client.media_files import MediaServer
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ConfigError, NotRunningError, TimedOutError
from qwen_fp8_ops.gate.keys import private_text
from qwen_fp8_ops.outside import clock, lock, net, process
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.report.status import collect
from qwen_fp8_ops.report.words import duration, load_line
from qwen_fp8_ops.service.states import ENDED, State

START = "./start_service.sh"
NOT_YET = frozenset({State.PREFLIGHT, State.STARTING})
POLL_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 3600.0
"""For ``wait``, when no plan tells START_TIMEOUT."""


@dataclass(frozen=True)
class Target:
    """``media`` is there when the engine can fetch this machine's files from it. ``body_limit_bytes`` and ``max_num_seqs`` (requests
    that an engine works on at once) None are unknown.
    """

    url: str
    model: str | None
    key: str
    media: MediaServer | None = None
    body_limit_bytes: int | None = None
    max_num_seqs: int | None = None


def given_target(url: str, key_file: Path | None, environ: Mapping[str, str]) -> Target:
    """An API that was named: its key is the file's first one, else OPENAI_API_KEY, which is for no other case.

    Raises:
        OpsError: the key file cannot be used.
    """
    return Target(url, None, first_key(key_file) if key_file else environ.get("OPENAI_API_KEY", ""))


def own_target(paths: RunPaths, key_file: Path | None, *, wait: bool, say: Callable[[str], None]) -> Target:
    """The service of this folder, as run/endpoint.json tells.

    Args:
        wait: while it starts, wait until it serves, as long as START_TIMEOUT allows.

    Raises:
        NotRunningError: it does not run, or (without ``wait``) it is still starting.
        TimedOutError: it was still starting when the wait ended.
    """
    status = _wait(paths, say) if wait else _status(paths)
    endpoint, plan = read_json(paths.endpoint), _plan(paths)
    if status["state"] in NOT_YET:
        raise NotRunningError(
            f"The service is not ready yet: {_phase(status)}", code="not-ready", fix="Wait for it: the same command with --wait, or `qwen-fp8 status --watch`"
        )
    # A folder that holds only endpoint.json was copied to a machine where the service does not run: it counts.
    if not isinstance(endpoint, dict) or "url" not in endpoint or (status["state"] in ENDED and paths.state.exists()):
        why = f" ({status['state']}: {status['error']['message']})" if status["error"] else ""
        raise NotRunningError(f"The service is not running{why}", fix=START if not why else f"{START}, or see `qwen-fp8 status`")
    settings = plan.get("settings", {})
    here = endpoint.get("host") == process.host_name()
    return Target(
        url=endpoint["url"] if here else _seen_from_afar(endpoint),
        model=endpoint.get("model"),
        key=first_key(key_file) if key_file else _own_key(paths, endpoint),
        media=_media(plan, endpoint, status) if here else None,
        body_limit_bytes=int(settings["MAX_BODY_MB"]) * 1_000_000 if "MAX_BODY_MB" in settings else None,
        max_num_seqs=int(settings["MAX_NUM_SEQS"]) if "MAX_NUM_SEQS" in settings else None,
    )


def first_key(path: Path) -> str:
    """The first key of a file with a ``name:key`` on each line, or the key alone; its name is of no matter here.

    Raises:
        OpsError: the file is missing, open to others or not text (code ``bad-keys-file``).
        ConfigError: it holds no key.
    """
    for raw in private_text(path).splitlines():
        line = raw.strip()
        if line and not line.startswith("#"):
            name, colon, key = line.partition(":")
            return key if colon else name
    raise ConfigError(f"There is no key in {path}", code="no-key", fix=f"Put a line name:key into {path}")


def _own_key(paths: RunPaths, endpoint: dict[str, Any]) -> str:
    """The key that the supervisor made for this machine's tools; else the operator's first. Empty when we may read neither."""
    files = [paths.keys, *([Path(endpoint["key_file"])] if endpoint.get("key_file") else [])]
    return next((first_key(file) for file in files if os.access(file, os.R_OK)), "")


def _media(plan: dict[str, Any], endpoint: dict[str, Any], status: dict[str, Any]) -> MediaServer | None:
    root, url = plan.get("media_root"), endpoint.get("media_url")
    works = status["media"] is None or status["media"]["state"] == State.READY
    return MediaServer(Path(root), url) if root and url and works else None


def _seen_from_afar(endpoint: dict[str, Any]) -> str:
    """The endpoint's URL is the one of its own host; elsewhere a loopback address means another machine."""
    parts = urlsplit(endpoint["url"])
    if not net.is_loopback(parts.hostname or "") or not endpoint.get("host"):
        return str(endpoint["url"])
    return str(parts._replace(netloc=f"{endpoint['host']}:{parts.port}").geturl())


def _status(paths: RunPaths) -> dict[str, Any]:
    """The recorded status; but a living holder of the lock under an ended state is a start that has recorded nothing yet."""
    status = collect(paths)
    holder = lock.holder(paths.lock) if status["state"] in ENDED else None
    return {**status, "state": State.PREFLIGHT.value, "error": None} if holder and holder.alive else status


def _phase(status: dict[str, Any]) -> str:
    return load_line(status["load"]) if status["load"] else str(status["state"])


def _plan(paths: RunPaths) -> dict[str, Any]:
    value = read_json(paths.plan)
    return value if isinstance(value, dict) else {}


def _wait(paths: RunPaths, say: Callable[[str], None]) -> dict[str, Any]:
    """The status once it is no longer starting; each new phase is said."""
    limit_seconds = float(_plan(paths).get("settings", {}).get("START_TIMEOUT", LONGEST_WAIT_SECONDS))
    deadline, said = clock.monotonic() + limit_seconds, ""
    while (status := _status(paths))["state"] in NOT_YET:
        phase = _phase(status)
        if phase.partition(",")[0] != said:
            said = phase.partition(",")[0]
            say(f"waiting: {phase}")
        if clock.monotonic() > deadline:
            raise TimedOutError(f"The service is still not ready after {duration(limit_seconds)}: {phase}", fix="See `qwen-fp8 status` and `qwen-fp8 logs`.")
        time.sleep(POLL_SECONDS)
    return status
