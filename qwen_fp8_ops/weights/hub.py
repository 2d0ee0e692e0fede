"""The Hub: which commit a name means, which files it has with which hashes, and the bytes of a file from any position on.

Session, token, endpoint, redirects, errors and Xet are huggingface_hub's. Its own ``snapshot_download`` is not used: since release 1
it throws away what was fetched of a file when it is interrupted (huggingface_hub pull request 4228), and one shard is 5 GB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from qwen_fp8_ops.weights.hub_errors import About, explain, no_hub, troubles
from qwen_fp8_ops.weights.manifest import is_inside

PUBLIC_HUB = "https://huggingface.co"
QUIET_SECONDS = 30.0
"""A server that sends nothing for so long is given up; HF_HUB_DOWNLOAD_TIMEOUT overrides it."""
DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0)
"""Waits between tries that bring nothing; a try that brought bytes begins the row anew."""


@dataclass(frozen=True)
class HubFile:
    """One file of a commit. Large ones are known by ``sha256``, those kept in git itself by ``git_blob``; ``xet`` is the address in Xet storage."""

    name: str
    bytes: int
    sha256: str | None
    git_blob: str | None
    xet: str | None = None

    @property
    def digest(self) -> str:
        """The hash by which the Hub knows the content."""
        return self.sha256 or self.git_blob or ""


@dataclass(frozen=True)
class Body:
    """``begin`` is where the bytes begin: where it was asked, or 0 when the server does not know ranges."""

    begin: int
    chunks: Iterator[bytes]


def is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def hub_files(repo: str, revision: str) -> tuple[HubFile, ...]:
    """The files of a commit, by the Hub that HF_ENDPOINT names.

    Raises:
        HubError: it cannot be asked, or refuses.
    """
    hub = Hub.from_environment()
    return hub.files(repo, hub.commit(repo, revision))


@dataclass(frozen=True)
class Hub:
    """A Hub, how long we wait for its answers, and how often we ask again."""

    endpoint: str = PUBLIC_HUB
    quiet_seconds: float = QUIET_SECONDS
    delays_seconds: tuple[float, ...] = DELAYS_SECONDS

    @classmethod
    def from_environment(cls) -> Hub:
        seconds = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")
        return cls((os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/"), float(seconds) if seconds.isdigit() else QUIET_SECONDS)

    @property
    def first_delays_seconds(self) -> tuple[float, ...]:
        """A Hub that cannot be reached at all is told soon; one that breaks off in the middle is waited for longer."""
        return self.delays_seconds[:3]

    def commit(self, repo: str, revision: str) -> str:
        """The commit that a branch, tag or shortened commit means now: 40 hex digits.

        Raises:
            HubError: there is none, or the Hub cannot be asked.
        """
        if is_commit(revision):
            return revision
        about = About(self.endpoint, repo, revision)
        value, _ = self._json(f"/api/models/{repo}/revision/{quote(revision, safe='')}", about)
        sha = value.get("sha") if isinstance(value, dict) else None
        if not isinstance(sha, str) or not is_commit(sha):
            raise no_hub(about, "the repository's commit is missing")
        return sha

    def files(self, repo: str, commit: str) -> tuple[HubFile, ...]:
        """Every file of a commit.

        Raises:
            HubError: there is no such commit, or the Hub cannot be asked.
        """
        about = About(self.endpoint, repo, commit)
        found: list[HubFile] = []
        page: str | None = f"/api/models/{repo}/tree/{commit}?recursive=true&expand=false"
        while page is not None:
            entries, page = self._json(page, about)
            try:
                found += [_file(entry) for entry in entries if entry["type"] == "file"]
            except (KeyError, TypeError, ValueError) as error:
                raise no_hub(about, f"its list of files cannot be read ({error!r})") from error
        return tuple(found)

    @contextmanager
    def read(self, repo: str, commit: str, file: HubFile, begin: int, *, plain: bool = False) -> Iterator[Body]:
        """The file's bytes from ``begin`` on; ``plain``: by HTTP, also where there is Xet.

        Raises:
            HubError: at any moment of the transfer.
        """
        from qwen_fp8_ops.weights import xet

        about = About(self.endpoint, repo, commit, file.name)
        headers = self._headers()
        if file.xet and not plain and xet.is_available():
            with xet.reading(self.endpoint, repo, commit, file.xet, file.bytes, begin, headers) as chunks:
                yield Body(begin, chunks)
            return
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # public, but not declared so

        url = f"{self.endpoint}/{repo}/resolve/{commit}/{quote(file.name)}"
        headers |= {"Accept-Encoding": "identity", **({"Range": f"bytes={begin}-"} if begin else {})}
        try:
            with get_session().stream("GET", url, headers=headers, timeout=self.quiet_seconds) as response:
                if response.status_code >= 400:
                    response.read()
                hf_raise_for_status(response)
                told = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "")) if response.status_code == 206 else None
                yield Body(int(told[1]) if told else 0, response.iter_bytes())
        except troubles() as error:
            raise explain(error, about) from error

    def _json(self, path: str, about: About) -> tuple[Any, str | None]:
        """What the Hub answers, and the path of the next page."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # public, but not declared so

        try:
            response = get_session().get(self.endpoint + path, headers=self._headers(), timeout=self.quiet_seconds)
            hf_raise_for_status(response)
            value = response.json()
            following = response.links.get("next", {}).get("url")
        except troubles() as error:
            raise explain(error, about) from error
        except ValueError as error:
            raise no_hub(about, "not JSON") from error
        # A mirror may pass on pages that name the public Hub.
        return value, following and following.removeprefix(PUBLIC_HUB).removeprefix(self.endpoint)

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        return dict(build_hf_headers(library_name="qwen-fp8-ops"))


def _file(entry: Any) -> HubFile:
    large = entry.get("lfs")
    name, size = entry["path"], large["size"] if large else entry["size"]
    if not isinstance(name, str) or not is_inside(name):
        raise ValueError(f"the name {name!r} leaves the folder")
    if type(size) is not int or size < 0:
        raise ValueError(f"{name} has the size {size!r}")
    if large:
        return HubFile(name, size, str(large["oid"]).removeprefix("sha256:"), None, entry.get("xetHash"))
    return HubFile(name, size, None, str(entry["oid"]), entry.get("xetHash"))


