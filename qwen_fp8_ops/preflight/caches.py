"""Folders that the engine compiles into. On a file server, workers race for the same files ("Stale file handle", pytorch 173679)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.outside.storage import mount_of
from qwen_fp8_ops.plan.load_strategy import NETWORK
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.storage import is_writable, nearest
from qwen_fp8_ops.preflight.subject import Subject

GROUP = "Storage"
MIB = 1 << 20
COMPILED_BYTES = 4 << 30
"""What compiled kernels and graphs of a large model may take, over a few versions of it; without compilation a small part."""

EAGER_BYTES = 64 * MIB


@dataclass(frozen=True)
class Cache:
    """``key`` is the environment variable that moves it; ``compiled``: the engine writes there when it starts."""

    key: str
    folder: Path
    compiled: bool = True


@check(
    GROUP,
    {
        "cache-writable": "the engine can write its compile caches",
        "cache-space": "there is space for them",
        "cache-network": "VLLM_CACHE_ROOT, TRITON_CACHE_DIR, TORCHINDUCTOR_CACHE_DIR and HF_HOME are not on a network file system",
    },
)
def check_caches(subject: Subject) -> Iterator[Finding]:
    found = caches({**subject.environ, **subject.plan.engines[0].env})
    compiled = [cache for cache in found if cache.compiled]
    closed = [cache for cache in compiled if not is_writable(nearest(cache.folder))]
    local = local_folder(subject.environ)
    if closed:
        yield Finding("cache-writable", "fail", f"Cannot write in {' and '.join(str(cache.folder) for cache in closed)}", _exports(closed, local))
    else:
        yield Finding("cache-writable", "pass", ", ".join(str(cache.folder) for cache in compiled))
        wanted = EAGER_BYTES if subject.settings.enforce_eager else COMPILED_BYTES
        free, tightest = min((shutil.disk_usage(nearest(cache.folder)).free, cache.folder) for cache in compiled)
        if free < wanted:
            fix = f"Free some space at {tightest}, or move it:\n{_exports(compiled, local)}"
            yield Finding("cache-space", "warn", f"only {free // MIB} MiB free at {tightest}; compiled kernels may take {wanted // MIB}", fix)
        else:
            yield Finding("cache-space", "pass", f"{free // MIB:,} MiB free at {tightest}")
    shared = [(cache, mount.type) for cache in found if (mount := mount_of(cache.folder)) is not None and mount.type in NETWORK]
    if shared:
        seen = ", ".join(f"{cache.key} ({cache.folder}: {type})" for cache, type in shared)
        yield Finding("cache-network", "warn", f"Caches lie on a network file system: {seen}", _exports([cache for cache, _ in shared], local))
    else:
        yield Finding("cache-network", "pass", "none on a network file system")


def caches(environ: Mapping[str, str]) -> list[Cache]:
    """Where vLLM, Triton, inductor and the Hub's library keep what they make; their own defaults where nothing is set."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    shared = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    temporary = Path(environ.get("TMPDIR") or tempfile.gettempdir())
    places = (
        ("VLLM_CACHE_ROOT", shared / "vllm", True),
        ("TRITON_CACHE_DIR", home / ".triton" / "cache", True),
        ("TORCHINDUCTOR_CACHE_DIR", temporary / f"torchinductor_{home.name}", True),
        ("HF_HOME", shared / "huggingface", False),
    )
    return [Cache(key, Path(os.path.expanduser(environ[key])) if environ.get(key) else default, compiled) for key, default, compiled in places]


def local_folder(environ: Mapping[str, str]) -> Path:
    """One on this node's own disk, as batch systems name it."""
    return Path(environ.get("SLURM_TMPDIR") or environ.get("TMPDIR") or "/tmp") / "qwen-fp8-caches"  # noqa: S108 - named to the user, not opened


def _exports(found: list[Cache], folder: Path) -> str:
    return "Before the start, in the same shell, on the node's own disk:\n" + "\n".join(
        f"export {cache.key}={folder / cache.key.split('_')[0].lower()}" for cache in found
    )
