"""The HTTP of the local Hub: model info, tree, resolve, and the storage that resolve redirects to."""

from __future__ import annotations

import json
import os
import re
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub import xet
from tests.hub.content import Blob, Commit

if TYPE_CHECKING:
    from tests.hub.server import Fault, Hub

BLOCK_BYTES = 1 << 20
XET_TOKEN = "xetLocalToken"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "LocalHub"
    disable_nagle_algorithm = True

    @property
    def hub(self) -> Hub:
        return cast("Any", self.server).hub

    def log_message(self, *about: object) -> None:
        """Tests look at ``hub.requests``."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        from tests.hub.server import Request

        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, headers.get("host", ""), self.path, headers))
        fault = self.hub.fault_for(self.command, self.path)
        if fault and fault.status:
            self._refuse(fault.status, dict(fault.headers))
            return
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3], fault)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", path):
            self._xet_token(found[1], found[2])
        elif found := re.fullmatch(r"/xet/v1/reconstructions/([0-9a-f]{64})", path):
            self._xet_plan(found[1])
        elif found := re.fullmatch(r"/xet/chunks/([0-9a-f]{64})", path):
            self._xet_chunks(found[1], fault)
        elif found := re.fullmatch(r"/storage/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            self._storage(found[1], found[2], found[3], fault)
        else:
            self._refuse(404, {"X-Error-Message": "Sorry, we can't find the page you are looking for."})
        for repo, (part, commit) in list(self.hub.move_after.items()):
            if part in self.path:
                self.hub.repositories[repo].names["main"] = commit
                del self.hub.move_after[repo]

    def _commit(self, repo: str, revision: str) -> Commit | None:
        """None when a refusal was sent."""
        from tests.hub.server import TOKEN

        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            self._refuse(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        found = self.hub.repositories.get(repo)
        if found is None or (repo in self.hub.private and given is None):
            # The real one says 401 to a stranger: it does not tell him whether the repository exists.
            if given is None:
                self._refuse(401, {"X-Error-Message": "Invalid username or password."})
            else:
                self._refuse(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        commit = found.commit(revision)
        if commit is None:
            self._refuse(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        return commit

    def _info(self, repo: str, revision: str) -> None:
        if commit := self._commit(repo, revision):
            siblings = [{"rfilename": name} for name in commit.files]
            self._json({"_id": "1", "id": repo, "modelId": repo, "sha": commit.sha, "private": repo in self.hub.private, "tags": [], "siblings": siblings})

    def _tree(self, repo: str, revision: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        entries: list[dict[str, Any]] = []
        folders: set[str] = set()
        for name, blob in sorted(commit.files.items()):
            for parent in [str(parent) for parent in Path(name).parents if str(parent) != "."]:
                if parent not in folders:
                    folders.add(parent)
                    entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": parent})
            entry: dict[str, Any] = {"type": "file", "oid": blob.git_blob, "size": blob.size, "path": name}
            if blob.large:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
                if repo in self.hub.xet:
                    entry["xetHash"] = blob.sha256
            entries.append(entry)
        begin = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = begin + self.hub.page_entries
        headers = {}
        if end < len(entries):
            headers["Link"] = f'<{self.hub.url}/api/models/{repo}/tree/{revision}?recursive=True&cursor={end}>; rel="next"'
        self._json(entries[begin:end], headers)

    def _resolve(self, repo: str, revision: str, name: str, fault: Fault | None) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        if repo in self.hub.gated:
            self._refuse(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {repo} is restricted and you are not in the authorized list."})
            return
        blob = commit.files.get(name)
        if blob is None:
            self._refuse(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        headers = {"X-Repo-Commit": commit.sha}
        if not blob.large:
            self._body(blob, {**headers, "ETag": f'"{blob.etag}"'}, fault)
            return
        target = f"{self.hub.cdn_url}/storage/{repo}/{commit.sha}/{quote(name)}?signature=0123456789"
        if repo in self.hub.xet:
            headers |= {"X-Xet-Hash": blob.sha256, "X-Xet-Refresh-Route": f"{self.hub.url}/api/models/{repo}/xet-read-token/{commit.sha}"}
        linked = {"X-Linked-ETag": f'"{blob.etag}"', "X-Linked-Size": str(blob.size), "Location": target, "Content-Length": "0"}
        self._head(302, {**headers, **linked})

    def _storage(self, repo: str, commit: str, name: str, fault: Fault | None) -> None:
        if "Authorization" in self.headers:
            self._refuse(400, {"X-Error-Message": "The storage takes a signature, and no token"})
            return
        blob = self.hub.repositories[repo].commits[commit].files[name]
        self._body(blob, {"ETag": f'"{blob.etag}"'}, fault)

    def _xet_token(self, repo: str, revision: str) -> None:
        if self._commit(repo, revision):
            about = {"casUrl": f"{self.hub.cdn_url}/xet", "accessToken": XET_TOKEN, "exp": int(time.time()) + 3600}
            headers = {"X-Xet-Cas-Url": about["casUrl"], "X-Xet-Access-Token": XET_TOKEN, "X-Xet-Token-Expiration": str(about["exp"])}
            self._json(about, {key: str(value) for key, value in headers.items()})

    def _xet_plan(self, address: str) -> None:
        """Which chunks make up the asked range of a file, and where they are."""
        blob = self._xet_blob(address)
        if self.headers.get("Authorization") != f"Bearer {XET_TOKEN}":
            self._refuse(401, {})
        elif blob is None:
            self._refuse(404, {})
        else:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
            assert asked
            begin, end = int(asked[1]), min(blob.size, int(asked[2] or blob.size) + 1)
            self._json(xet.reconstruction(address, blob, begin, end, f"{self.hub.cdn_url}/xet/chunks/{address}"))

    def _xet_chunks(self, address: str, fault: Fault | None) -> None:
        blob = self._xet_blob(address)
        assert blob, "its plan was given"
        self._body(xet.stored(blob), {}, fault)

    def _xet_blob(self, address: str) -> Blob | None:
        blobs = (blob for repo in self.hub.repositories.values() for commit in repo.commits.values() for blob in commit.files.values())
        return next((blob for blob in blobs if blob.large and blob.sha256 == address), None)

    def _body(self, blob: Blob, headers: dict[str, str], fault: Fault | None) -> None:
        total = blob.size - (fault.shorter if fault else 0)
        begin, end, status = 0, total, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not (fault and fault.no_ranges):
            begin, end, status = int(asked[1]), min(total, int(asked[2]) + 1 if asked[2] else total), 206
            if begin >= total:
                self._refuse(416, {"Content-Range": f"bytes */{total}"})
                return
            headers = {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{total}"}
        self._head(status, {**headers, "Content-Length": str(end - begin), "Accept-Ranges": "bytes"})
        if self.command == "GET":
            self._send(blob, begin, end, fault)

    def _send(self, blob: Blob, begin: int, end: int, fault: Fault | None) -> None:
        if fault is None and isinstance(blob.source, Path):
            with blob.source.open("rb") as file:
                while begin < end:
                    begin += os.sendfile(self.connection.fileno(), file.fileno(), begin, min(end - begin, 1 << 30))
            return
        at = begin
        limits = [limit for limit in (fault.drop_after, fault.stall_after) if limit is not None] if fault else []
        while at < end:
            sent = at - begin
            if fault and fault.drop_after is not None and sent >= fault.drop_after:
                self.close_connection = True
                self.connection.close()
                return
            if fault and fault.stall_after is not None and sent >= fault.stall_after:
                fault.stalled.set()
                fault.let_go.wait()
                limits = []
            ahead = [limit - sent for limit in limits if limit > sent]
            slow = [max(1, fault.bytes_per_second // 20)] if fault and fault.bytes_per_second else []
            block = blob.read(at, min(BLOCK_BYTES, end - at, *ahead, *slow))
            if fault and fault.wrong and at == begin:
                block = bytes([block[0] ^ 1]) + block[1:]
            self.wfile.write(block)
            at += len(block)
            if slow:
                time.sleep(0.05)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})})
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        body = json.dumps({"error": headers.get("X-Error-Message", "")}).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
