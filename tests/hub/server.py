"""A Hub on this machine, for the real huggingface_hub: the part of its HTTP API that a download uses, with faults to switch on.

    with serving() as hub:
        hub.add("owner/name", {"config.json": b"{}", "model.safetensors": Path("...")})
        environment = hub.environment(tmp_path)          # for a child process; HF_ENDPOINT is hub.url
        hub.fail("model.safetensors", drop_after=1000, times=2)

As on the real one, small files come from the Hub itself and large ones by a redirect to another host, which must not see the token.
Alone: ``python -m tests.hub.server FOLDER [--repo owner/name]`` serves a folder and prints its address.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.hub.content import Blob, Commit, Repository, make_commit
from tests.hub.handler import Handler

TOKEN = "hf_" + "localHubToken" * 2


@dataclass
class Fault:
    """What goes wrong with requests whose path holds ``part``; counts down ``times`` (None: always).

    Answers: ``status`` with ``headers``; bodies: ``drop_after`` bytes the connection ends, ``stall_after`` bytes nothing more comes
    until ``let_go`` is set, ``wrong`` flips a byte, ``shorter`` serves a file without its last bytes, ``bytes_per_second`` is slow.
    ``method`` is the one it counts for. ``repo``, ``gated`` and the like are not faults but states of a repository: see ``Hub``.
    """

    part: str
    times: int | None = None
    method: str = "GET"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    stall_after: int | None = None
    wrong: bool = False
    shorter: int = 0
    bytes_per_second: int | None = None
    no_ranges: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and self.part in path and self.times != 0


@dataclass(frozen=True)
class Request:
    method: str
    host: str
    path: str
    headers: Mapping[str, str]

    @property
    def range_begin(self) -> int | None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else None


class Hub:
    """The state that requests are answered from; tests change it while it serves."""

    def __init__(self, page_entries: int = 1000) -> None:
        self.repositories: dict[str, Repository] = {}
        self.private: set[str] = set()
        """Repositories that without TOKEN do not exist, as far as the Hub says."""
        self.xet: set[str] = set()
        """Repositories whose large files lie in Xet storage, and can be had by plain HTTP as well."""
        self.gated: set[str] = set()
        """Repositories whose terms nobody has accepted."""
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.move_after: dict[str, tuple[str, str]] = {}
        """repository: (part of a path, commit): once such a request was answered, main points to the commit."""
        self.page_entries = page_entries
        self.url = self.cdn_url = ""
        self.guard = threading.Lock()

    def clear(self) -> None:
        """As new, at the same address."""
        self.heal()
        for state in (self.repositories, self.private, self.gated, self.xet, self.requests, self.move_after):
            state.clear()

    def add(self, repo: str, files: Mapping[str, bytes | Path | Blob], revision: str = "main") -> str:
        """A new commit of the repository, with exactly these files; ``revision`` points to it from now on. Gives its hash."""
        commit = make_commit(files)
        self.hold(repo, commit)
        self.repositories[repo].names[revision] = commit.sha
        return commit.sha

    def hold(self, repo: str, commit: Commit) -> None:
        """Have the commit, without any name that points to it."""
        self.repositories.setdefault(repo, Repository()).commits[commit.sha] = commit

    def fail(self, part: str, *, times: int | None = None, **what: object) -> Fault:
        fault = Fault(part, times, **what)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """No fault any more; what is stalled goes on."""
        faults, self.faults = self.faults, []
        for fault in faults:
            fault.let_go.set()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.guard:
            found = next((fault for fault in self.faults if fault.matches(method, path)), None)
            if found and found.times is not None:
                found.times -= 1
            return found

    def environment(self, home: Path, token: str = "") -> dict[str, str]:
        """What a child needs to speak to this Hub and to nothing of the user's own."""
        given = {"HF_ENDPOINT": self.url, "HF_HOME": str(home / "hf-home"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "*"}
        return {**given, "HF_TOKEN": token} if token else given

    def asked_for(self, part: str, method: str = "GET") -> list[Request]:
        return [request for request in self.requests if part in request.path and request.method == method]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients here are killed and go away; that is no news."""


@contextlib.contextmanager
def serving(hub: Hub | None = None) -> Iterator[Hub]:
    hub = hub or Hub()
    with Server(hub) as server:
        port = server.server_address[1]
        # Two names of one address: a redirect from the one to the other leaves the Hub, as one to the real storage does.
        hub.url, hub.cdn_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.heal()
            server.shutdown()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repo", default="owner/name")
    options = parser.parse_args()
    files = {str(path.relative_to(options.folder)): path for path in sorted(options.folder.rglob("*")) if path.is_file()}
    with serving() as hub:
        sha = hub.add(options.repo, files)
        print(f"{hub.url} {sha}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
