"""One file from the Hub into a folder: gone on with where it stopped, hashed as it comes, put in place only when it is right.

    folder/
    ├── model-00001-of-00024.safetensors      verified; appears in one step
    └── .download/
        ├── model-00002-of-00024.safetensors.1f0c9a31.part     what is there of a file; the digits are those of its content's hash,
        └── aside/                                             so that a part is never gone on with when the file has changed
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from qwen_fp8_ops.errors import GaveUpError, OpsError
from qwen_fp8_ops.weights.hashes import Hashes
from qwen_fp8_ops.weights.hub import Hub, HubFile
from qwen_fp8_ops.weights.hub_errors import HubError
from qwen_fp8_ops.weights.manifest import ManifestFile
from qwen_fp8_ops.weights.room import disk_words

WORK = ".download"
ASIDE = "aside"
LONGEST_WAIT_SECONDS = 900.0
"""A server that asks to wait for longer is told to the user instead."""

Answer = TypeVar("Answer")


class Ears(Protocol):
    """Who hears of the progress; called from several threads."""

    def moved(self, name: str, count: int, *, fetched: bool) -> None:
        """``count`` more bytes of the file are there; fewer when it begins anew. ``fetched``: they came over the network."""

    def say(self, text: str) -> None: ...


class Stopped(Exception):  # noqa: N818  (nothing failed)
    """Somebody asked to stop."""


@dataclass(frozen=True)
class Source:
    """Where files come from: one commit of one repository. ``plain`` is set once Xet storage was seen to fail: some networks let
    only the Hub itself through."""

    hub: Hub
    repo: str
    commit: str
    plain: threading.Event = field(default_factory=threading.Event)


def fetch_file(repo: str, revision: str, name: str, folder: Path) -> ManifestFile:
    """Fetch one file and put it in place of what is there, once it is verified.

    Raises:
        HubError, OpsError: it is not to be had, or does not become right; what was in its place stays.
    """
    hub = Hub.from_environment()
    commit = patiently(lambda: hub.commit(repo, revision), hub.first_delays_seconds)
    file = next((file for file in patiently(lambda: hub.files(repo, commit), hub.first_delays_seconds) if file.name == name), None)
    if file is None:
        raise OpsError(f"{repo} has no file {name} at {commit}", code="no-file", fix="See which it has: qwen-fp8 download --dry-run")
    return Fetch(Source(hub, repo, commit), file, folder).run()


def part_path(folder: Path, file: HubFile) -> Path:
    return folder / WORK / f"{file.name}.{file.digest[:8]}.part"


def aside_path(folder: Path, name: str) -> Path:
    """A free name for something that is put aside."""
    wanted = folder / WORK / ASIDE / name
    return next(path for number in range(1, 10_000) if not (path := wanted.with_name(f"{wanted.name}.{number}")).exists())


def patiently(ask: Callable[[], Answer], delays: Sequence[float], say: Callable[[str], None] | None = None) -> Answer:
    """Ask again after what may pass.

    Raises:
        GaveUpError: it did not pass.
        HubError: it cannot.
    """
    left = list(delays)
    while True:
        try:
            return ask()
        except HubError as error:
            pause(error, left, say, threading.Event())


def pause(error: HubError, delays: list[float], say: Callable[[str], None] | None, stop: threading.Event) -> None:
    """Wait the next of ``delays``, or what the Hub asks for.

    Raises:
        GaveUpError: no delay is left, or the Hub asks for too much.
        HubError: waiting does not help.
        Stopped: somebody asked to.
    """
    if not error.passing:
        raise error
    asked = error.wait_seconds or 0.0
    if not delays or asked > LONGEST_WAIT_SECONDS:
        raise GaveUpError(error.message, fix=error.fix, code=error.code) from error
    seconds = max(delays.pop(0), asked)
    if say:
        say(f"{error.message}; trying again in {seconds:g} s")
    if stop.wait(seconds):
        raise Stopped


class Fetch:
    """The way of one file. ``run`` is called once."""

    def __init__(
        self,
        source: Source,
        file: HubFile,
        folder: Path,
        *,
        keep: bool = False,
        ears: Ears | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """``keep``: a file that stands in its place is put aside for good, for a person may have written it."""
        self.source, self.file, self.folder, self.keep, self.ears = source, file, folder, keep, ears
        self.stop = stop or threading.Event()
        self.part = part_path(folder, file)
        self.target = folder / file.name
        self.hashes = Hashes(file)
        """Of exactly the bytes that the part holds."""

    def run(self) -> ManifestFile:
        """
        Raises:
            HubError, GaveUpError: the Hub does not give it.
            OpsError: code ``wrong-content`` when it came wrong twice; or the disk refuses it.
            Stopped: somebody asked to; the part is kept.
        """
        with disk_words(self.target):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._take_up()
        self._bring()
        wrong = None
        if not self.hashes.right:
            wrong = self._put_aside()
            self._say(f"{self.file.name} came with wrong content; fetching it once more")
            self._bring()
        if not self.hashes.right:
            raise self._wrong_content(self._put_aside())
        return self._put_in_place(wrong)

    def _take_up(self) -> None:
        """Know what an earlier run left of the file."""
        with contextlib.suppress(FileNotFoundError):
            if self.part.stat().st_size > self.file.bytes:
                self.part.unlink()
            self.hashes.read(self.part, lambda count: self._moved(count, fetched=False))

    def _bring(self) -> None:
        """All bytes of the file into its part; whether they are the right ones is for the caller to say."""
        left = list(self.source.hub.delays_seconds)
        with self._open_part() as descriptor:
            while self.hashes.count < self.file.bytes:
                before = self.hashes.count
                try:
                    self._transfer(descriptor)
                except HubError as error:
                    if self.hashes.count > before:
                        left = list(self.source.hub.delays_seconds)
                    elif self.file.xet and not self.source.plain.is_set():
                        self.source.plain.set()
                        self._say(f"{error.message}; going on by plain HTTP")
                        continue
                    pause(error, left, self._say, self.stop)

    @contextlib.contextmanager
    def _open_part(self) -> Iterator[int]:
        with disk_words(self.target):
            descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _transfer(self, descriptor: int) -> None:
        """One request's worth of bytes, written and hashed as they come.

        Raises:
            HubError: it broke off, or ended early.
        """
        plain = self.source.plain.is_set()
        with self.source.hub.read(self.source.repo, self.source.commit, self.file, self.hashes.count, plain=plain) as body:
            if body.begin != self.hashes.count:
                self._forget()
            for block in body.chunks:
                if self.stop.is_set():
                    raise Stopped
                with disk_words(self.target):
                    _write_at(descriptor, block, self.hashes.count)
                self.hashes.update(block)
                self._moved(len(block), fetched=True)
                if self.hashes.count > self.file.bytes:
                    return  # longer than the file: wrong, and perhaps without end
        if self.hashes.count < self.file.bytes:
            told = f"{self.file.name} ended at {self.hashes.count:,} of {self.file.bytes:,} bytes"
            raise HubError(told, code="truncated", passing=True, fix="Run it again to go on; what was fetched is kept.")

    def _forget(self) -> None:
        """Nothing of the file is there any more, as far as we are concerned."""
        self._moved(-self.hashes.count, fetched=False)
        self.hashes = Hashes(self.file)

    def _put_aside(self) -> Path:
        """Wrong content is kept until the right one is there, for whoever wants to know how it came about."""
        path = aside_path(self.folder, self.file.name)
        with disk_words(self.target):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.part, path)
        self._forget()
        return path

    def _put_in_place(self, wrong: Path | None) -> ManifestFile:
        with disk_words(self.target):
            os.truncate(self.part, self.file.bytes)  # what an interrupted write left behind the part's end
            if self.keep and self.target.exists():
                kept = aside_path(self.folder, self.file.name)
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.rename(self.target, kept)
                self._say(f"{self.file.name} was not the Hub's; the one that was there is now {kept}")
            os.replace(self.part, self.target)
            stamp = self.target.stat().st_mtime_ns
            if wrong:
                wrong.unlink(missing_ok=True)
        return ManifestFile(self.file.name, self.file.bytes, self.hashes.sha256, stamp, self.hashes.git_blob)

    def _wrong_content(self, kept: Path) -> OpsError:
        return OpsError(
            f"{self.file.name} came twice with content that is not what the Hub says it is",
            code="wrong-content",
            fix=f"It is kept as {kept}. A proxy or mirror may alter it: check HF_ENDPOINT and HTTPS_PROXY, then run it again.",
        )

    def _moved(self, count: int, *, fetched: bool) -> None:
        if self.ears:
            self.ears.moved(self.file.name, count, fetched=fetched)

    def _say(self, text: str) -> None:
        if self.ears:
            self.ears.say(text)


def _write_at(descriptor: int, block: bytes, position: int) -> None:
    """All of the block: a write into the last room of a disk may take a part and say so only by its count."""
    view = memoryview(block)
    while view:
        count = os.pwrite(descriptor, view, position)
        view, position = view[count:], position + count
