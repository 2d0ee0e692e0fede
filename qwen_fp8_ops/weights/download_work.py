"""A download under way: workers bring files, the thread that started them counts, and alone writes the manifest."""

from __future__ import annotations

import queue
import threading
from typing import Protocol

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.download_plan import DownloadPlan, Item, Presence
from qwen_fp8_ops.weights.fetch import Ears, Fetch, Source, Stopped
from qwen_fp8_ops.weights.hashes import Hashes
from qwen_fp8_ops.weights.hub import Hub
from qwen_fp8_ops.weights.manifest import ManifestFile
from qwen_fp8_ops.weights.room import disk_words

OF_ONE_FILE = frozenset({"wrong-content", "no-file", "truncated"})
"""Failures that say nothing about the other files: these are still brought."""
FAREWELL_SECONDS = 2.0


class Audience(Ears, Protocol):
    """Who follows a download."""

    def begin(self, plan: DownloadPlan) -> None:
        """Bytes will move now; those of verified files are there, all others are told by ``moved`` as they come or are checked."""

    def finished(self, file: ManifestFile) -> None:
        """A file is verified and in its place."""


class Counter:
    """Passes on what workers say, one at a time, and adds up what came over the network."""

    def __init__(self, audience: Audience) -> None:
        self._audience, self._guard = audience, threading.Lock()
        self.fetched_bytes = 0

    def moved(self, name: str, count: int, *, fetched: bool) -> None:
        with self._guard:
            self.fetched_bytes += count if fetched else 0
            self._audience.moved(name, count, fetched=fetched)

    def say(self, text: str) -> None:
        with self._guard:
            self._audience.say(text)


class Work:
    """``carry_out`` is called once, and only when something is to be done."""

    def __init__(self, plan: DownloadPlan, hub: Hub, audience: Audience) -> None:
        self.plan, self.audience = plan, audience
        self._source = Source(hub, plan.request.repo, plan.commit)
        self.fetched_files = self.checked_files = 0
        self.counter = Counter(audience)
        self._verified = {file.name: file for file in plan.known.files} if plan.known else {}
        self._failed: list[OpsError] = []
        self._stop = threading.Event()
        self._todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[ManifestFile, bool] | BaseException | None] = queue.SimpleQueue()

    def carry_out(self) -> None:
        """
        Raises:
            OpsError: one or more files could not be brought; the others were, as far as that made sense.
        """
        for item in self.plan.todo:
            self._todo.put(item)
        # Daemons: a worker that waits for the network must not keep an interrupted program from ending.
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(min(self.plan.request.workers, len(self.plan.todo)))]
        for worker in workers:
            worker.start()
        try:
            at_work = len(workers)
            while at_work:
                result = self._results.get()
                if result is None:
                    at_work -= 1
                else:
                    self._take(result)
        finally:
            self._stop.set()
            deadline = clock.monotonic() + FAREWELL_SECONDS
            for worker in workers:
                worker.join(max(0.0, deadline - clock.monotonic()))
        if self._failed:
            raise _told_together(self._failed)

    @property
    def verified_names(self) -> frozenset[str]:
        return frozenset(self._verified)

    def write_manifest(self) -> None:
        """
        Raises:
            OpsError: the disk refuses it.
        """
        value = self.plan.manifest(self._verified.values())
        folder = self.plan.request.folder
        if value != self.plan.known:
            with disk_words(folder / manifest.FILE):
                manifest.write(folder, value)

    def _take(self, result: tuple[ManifestFile, bool] | BaseException) -> None:
        if isinstance(result, OpsError):
            self._failed.append(result)
            if result.code not in OF_ONE_FILE:
                self._stop.set()
        elif isinstance(result, BaseException):
            raise result
        else:
            file, fetched = result
            self.fetched_files += fetched
            self.checked_files += not fetched
            self._verified[file.name] = file
            self.write_manifest()
            self.audience.finished(file)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                item = self._todo.get_nowait()
                try:
                    self._results.put(self._bring(item))
                except OpsError as error:
                    self._results.put(error)
        except (queue.Empty, Stopped):
            pass
        except BaseException as error:
            self._results.put(error)  # a defect of ours: the download ends with it, instead of waiting for this file forever
            raise
        finally:
            self._results.put(None)

    def _bring(self, item: Item) -> tuple[ManifestFile, bool]:
        """The verified file, and whether it had to be fetched."""
        request = self.plan.request
        if item.presence is Presence.FOUND:
            if found := self._check(item):
                return found, False
            if request.offline:
                raise OpsError(f"Offline, and {item.file.name} is not what the Hub has", code="wrong-content", fix="Download it with a network, without --offline and HF_HUB_OFFLINE.")
        # Small files kept in git are what people edit; nobody edits weights by hand.
        keep = item.file.git_blob is not None
        return Fetch(self._source, item.file, request.folder, keep=keep, ears=self.counter, stop=self._stop).run(), True

    def _check(self, item: Item) -> ManifestFile | None:
        """Hash a file that came here by other means; None when it is not right and has to be fetched."""
        name, path, hashes = item.file.name, self.plan.request.folder / item.file.name, Hashes(item.file)

        def step(count: int) -> None:
            if self._stop.is_set():
                raise Stopped
            self.counter.moved(name, count, fetched=False)

        try:
            before = path.stat()
            hashes.read(path, step)
            after = path.stat()
        except OSError as error:
            self.counter.say(f"{name} cannot be read ({error.strerror})")
        else:
            if hashes.right and (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino):
                return ManifestFile(name, item.file.bytes, hashes.sha256, after.st_mtime_ns, hashes.git_blob)
        self.counter.moved(name, -hashes.count, fetched=False)
        return None


def _told_together(failed: list[OpsError]) -> OpsError:
    first = next((error for error in failed if error.code not in OF_ONE_FILE), failed[0])
    if first.code not in OF_ONE_FILE or len(failed) == 1:
        return first
    return OpsError(f"{len(failed)} files could not be brought: {'; '.join(error.message for error in failed)}", code=first.code, fix=first.fix)
