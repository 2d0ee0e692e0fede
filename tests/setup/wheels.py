"""Tiny wheels, a package index on loopback that serves them, and a checkout to set up: pip is the real one, the packages are not."""

from __future__ import annotations

import re
import shutil
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    """A wheel of one empty module."""
    module = name.replace("-", "_")
    information = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(_wheel_path(folder, module, version), "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", "")
        wheel.writestr(
            f"{information}/METADATA",
            "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires), ""]),
        )
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "".join(f"{path},,\n" for path in [*wheel.namelist(), f"{information}/RECORD"]))


def rebuild_wheel(folder: Path, name: str) -> None:
    """The wheel of an installed pure-Python package, from its files."""
    distribution = metadata.distribution(name)
    information = f"{name.replace('-', '_')}-{distribution.version}.dist-info"
    with zipfile.ZipFile(_wheel_path(folder, name, distribution.version), "w") as wheel:
        for path in distribution.files or ():
            if ".." not in path.parts and path.suffix != ".pyc" and path.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                wheel.write(path.locate(), str(path))
        wheel.writestr(f"{information}/RECORD", "".join(f"{path},,\n" for path in [*wheel.namelist(), f"{information}/RECORD"]))


def _wheel_path(folder: Path, module: str, version: str) -> Path:
    path = folder / f"{module}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Index:
    """A "simple" package index over HTTP: each folder of wheels is an index of its own. A download can be held back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads: list[str] = []
        self._held: dict[str, tuple[threading.Event, threading.Event]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign] # the client was killed, as the test wanted
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}/"

    @contextmanager
    def running(self) -> Iterator[Index]:
        self._thread.start()
        try:
            yield self
        finally:
            for _, released in self._held.values():
                released.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @contextmanager
    def holding(self, module: str) -> Iterator[threading.Event]:
        """Downloads of a module wait until the block ends; gives the event that one has arrived."""
        arrived, released = threading.Event(), threading.Event()
        self._held[module] = arrived, released
        try:
            yield arrived
        finally:
            del self._held[module]
            released.set()

    def _handler(index) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request's, inside
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                where, _, name = self.path.strip("/").partition("/")
                if name.endswith(".whl"):
                    module = name.partition("-")[0]
                    index.downloads.append(f"{where}/{name}")
                    if module in index._held:
                        arrived, released = index._held[module]
                        arrived.set()
                        released.wait(60)
                    self._answer((index.folder / where / name.replace("%2B", "+")).read_bytes(), "application/octet-stream")
                    return
                wheels = [path.name for path in (index.folder / where).glob("*.whl") if re.sub("[-_.]+", "-", path.name.partition("-")[0]).lower() == name]
                if wheels:
                    self._answer("".join(f'<a href="/{where}/{wheel}">{wheel}</a>' for wheel in wheels).encode(), "text/html")
                else:
                    self.send_error(404)

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def copy_checkout(to: Path) -> Path:
    """What git would clone, without documents and tests."""
    to.mkdir(parents=True)
    for name in ("scripts", "qwen_fp8_ops"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [ROOT / "pyproject.toml", ROOT / "LICENSE", *ROOT.glob("*.sh")]:
        shutil.copy2(path, to)
    return to


def pip_environment(environ: Mapping[str, str], index_url: str, torch_index: str) -> dict[str, str]:
    """An environment in which pip knows one index and nothing else."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("PIP_", "QWEN_FP8_")) and not name.lower().endswith("_proxy")}
    return kept | {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index_url, "PIP_NO_CACHE_DIR": "1", "QWEN_FP8_TORCH_INDEX": torch_index}
