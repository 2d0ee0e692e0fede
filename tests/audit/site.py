"""A site-packages folder of tiny distributions, as pip leaves them, and a package index on loopback that knows of them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def install(site: Path, name: str, version: str, *, requires: tuple[str, ...] = (), about: tuple[str, ...] = ()) -> Path:
    """A distribution of one module; returns the module's file."""
    module = name.replace("-", "_")
    information = site / f"{module}-{version}.dist-info"
    information.mkdir(parents=True)
    code = site / module / "__init__.py"
    code.parent.mkdir()
    code.write_text(f"NAME = {name!r}\n")
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires), *about, ""]
    (information / "METADATA").write_text("\n".join(lines))
    rows = [f"{path.relative_to(site)},sha256={record_hash(path)},{path.stat().st_size}" for path in (code, information / "METADATA")]
    (information / "RECORD").write_text("\n".join([*rows, f"{information.name}/RECORD,,", f"{module}/__pycache__/__init__.cpython-311.pyc,,", ""]))
    return code


def record_hash(path: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()


@dataclass
class FakeIndex:
    """``files`` by name: rows as PEP 691 has them. With ``as_html`` it is an older mirror, which knows no JSON."""

    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    as_html: bool = False
    asked: list[str] = field(default_factory=list)

    def release(self, name: str, version: str, *, yanked: bool | str = False, requires_python: str | None = None, tag: str = "py3-none-any") -> None:
        row = {"filename": f"{name.replace('-', '_')}-{version}-{tag}.whl", "url": "x", "hashes": {}, "yanked": yanked, "requires-python": requires_python}
        self.files.setdefault(name, []).append(row)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Gives its URL."""
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/").rpartition("/")[2]
                index.asked.append(name)
                rows = index.files.get(name)
                if rows is None:
                    self.send_error(404)
                    return
                wants_json = "simple.v1+json" in self.headers.get("Accept", "") and not index.as_html
                body = json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": rows}) if wants_json else page(rows)
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json" if wants_json else "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def page(rows: list[dict[str, Any]]) -> str:
    def anchor(row: Mapping[str, Any]) -> str:
        yanked = "" if row["yanked"] is False else f' data-yanked="{escape(row["yanked"] if isinstance(row["yanked"], str) else "")}"'
        python = f' data-requires-python="{escape(row["requires-python"])}"' if row["requires-python"] else ""
        return f'<a href="x#sha256=0"{yanked}{python}>{row["filename"]}</a><br/>'

    return f"<!DOCTYPE html><html><head><title>Links</title></head><body>{''.join(map(anchor, rows))}</body></html>"
