"""An hour at saturation with random faults: does anything grow, and do the accounts agree?

    python benchmarks/soak.py [--minutes 60] [--clients 8] [--fault-seconds 90] [--seed 1] [--json]

The demo service (the real vLLM on the CPU). Clients ask for text, one picture (data URL, media server), several pictures and films,
each with a body of its own, streamed or not; others fetch files of the media server. In the first half of the time something is done to
a process every --fault-seconds (SIGKILL of EngineCore, API server, media server; SIGSTOP of EngineCore, media server) and must be over
before the next; the second half is load alone, in which a leak of the engine's server shows, as no restart hides it.

Told in the end: requests by what became of them, audit lines against answers, memory, descriptors and threads of every process over time
(least squares, a beginning of its own for each process; its first seconds, and an engine's start, are not counted), sizes of the logs, and what the stop
could not end. Fails when a request is silent or wrong, when the audit does not agree, or when the supervisor or the media server grows.
Loopback only, ends by itself; Ctrl+C prints what there is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.under_load.accounts import AuditAccount, Outage, Record, audit_text, compare_audit, totals, unexplained, whole_since
from benchmarks.under_load.demo_service import MODEL, DemoService, NotBackError, agreed, running, wait_until
from benchmarks.under_load.traffic import Kind, Traffic, exchange
from benchmarks.under_load.verdict import Verdict
from benchmarks.under_load.vitals import Sample, growth, read, serving
from tests.media_files import data_url, make_image, make_video

ROLES = ("supervisor", "gate", "engine-core", "worker", "media")
"""The gate is part of the API server's process."""
OURS = ("supervisor", "media")
"""Whose growth is ours alone. The API server's memory is mostly vLLM's: caches of pictures, the allocator's pools."""
MOST_MIB_PER_HOUR = 8.0
SAMPLE_SECONDS = 2.0
PATIENCE_SECONDS = 900.0
HANG_SECONDS = 30
LOG_MAX_MB = 1
FILES_PAUSE_SECONDS = 0.05
SHOWN = 8

FAULTS = (
    ("engine-core", signal.SIGKILL),
    ("gate", signal.SIGKILL),
    ("media", signal.SIGKILL),
    ("engine-core", signal.SIGSTOP),
    ("media", signal.SIGSTOP),
)


def make_media(root: Path) -> list[Path]:
    """Some pictures and films: few enough that vLLM's cache of them is soon full of them and stays as it is."""
    root.mkdir(parents=True, exist_ok=True)
    colours = [(200, 40, 40), (40, 160, 60), (50, 80, 200), (220, 200, 60)]
    pictures = [make_image(root / f"{number}.{'png' if number % 2 else 'jpg'}", colour=colour) for number, colour in enumerate(colours)]
    return [*pictures, make_video(root / "film.mp4"), make_video(root / "longer film.mp4", frames=16)]


def kinds(files: Sequence[Path], media_url: str) -> list[Kind]:
    def part(kind: str, url: str) -> dict[str, Any]:
        return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}

    def served(file: Path) -> str:
        return f"{media_url}/{file.name.replace(' ', '%20')}"

    pictures, films = files[:4], files[4:]
    return [
        Kind("text", weight=4),
        Kind("long answer", weight=1, max_tokens=96),
        *(Kind(f"picture inline {file.name}", (part("image", data_url(file)),)) for file in pictures[:2]),
        *(Kind(f"picture served {file.name}", (part("image", served(file)),)) for file in pictures[2:]),
        Kind("pictures", tuple(part("image", data_url(file) if number % 2 else served(file)) for number, file in enumerate(pictures)), weight=2),
        *(Kind(f"film {file.name}", (part("video", served(file)),)) for file in films),
    ]


class FileClient(threading.Thread):
    """Fetches the media server's files, one after the other: each must be whole and right while the server lives."""

    def __init__(self, url: str, files: Sequence[Path]) -> None:
        super().__init__(daemon=True)
        self.records: list[Record] = []
        self._due = [(f"{url}/{file.name.replace(' ', '%20')}", hashlib.sha256(file.read_bytes()).digest()) for file in files]
        self._ending = threading.Event()

    def end(self) -> None:
        self._ending.set()
        self.join(timeout=PATIENCE_SECONDS)

    def run(self) -> None:
        number = 0
        while not self._ending.wait(FILES_PAUSE_SECONDS):
            url, due = self._due[number % len(self._due)]
            number += 1
            sent = time.monotonic()
            reply = exchange(url, None, "", PATIENCE_SECONDS)
            bad = {"unreached": Verdict.UNREACHED, "broken": Verdict.FAILED, "timed out": Verdict.SILENT}
            right = reply.status == 200 and hashlib.sha256(reply.body).digest() == due
            verdict = bad[reply.problem] if reply.problem else Verdict.WHOLE if right else Verdict.WRONG
            self.records.append(Record("", "file", sent, time.monotonic(), reply.status, verdict, f"{reply.status}, {len(reply.body)} bytes"))


class Watch(threading.Thread):
    """Reads what the processes hold, every SAMPLE_SECONDS."""

    def __init__(self, service: DemoService) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.log_bytes_most: dict[str, int] = {}
        self._service = service
        self._ending = threading.Event()

    def end(self) -> None:
        self._ending.set()
        self.join(timeout=60)

    def run(self) -> None:
        while not self._ending.wait(SAMPLE_SECONDS):
            found = [read(role, pid, time.monotonic()) for role, pid in self._service.pids().items()]
            self.samples += [sample for sample in found if sample is not None]
            for name, size in self._service.log_bytes().items():
                self.log_bytes_most[name] = max(size, self.log_bytes_most.get(name, 0))


class Soak:
    def __init__(self, service: DemoService, traffic: Traffic, files: FileClient, watch: Watch, seed: int) -> None:
        self.service = service
        self.traffic = traffic
        self.files = files
        self.watch = watch
        self.outages: list[Outage] = []
        self.began = time.monotonic()
        self._dice = random.Random(seed)

    def run(self, seconds: float, fault_seconds: float) -> None:
        """
        Raises:
            NotBackError: a fault was not healed.
        """
        self.began = time.monotonic()
        end, quiet_from = self.began + seconds, self.began + seconds / 2
        while time.monotonic() < quiet_from:
            time.sleep(min(self._dice.uniform(0.5, 1.5) * fault_seconds, max(0.0, quiet_from - time.monotonic())))
            if time.monotonic() < quiet_from:
                self._fault(*self._dice.choice(FAULTS))
        while time.monotonic() < end:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))

    def _fault(self, role: str, number: signal.Signals) -> None:
        moment = self.service.send(role, number)
        if moment is None:
            return
        name, client = ("media", self.files) if role == "media" else ("engine0", self.traffic)
        wait_until(lambda: self.service.event_after(moment, "program-ready", name), f"{name} is back after {number.name} of {role}")
        back = time.monotonic()
        wait_until(lambda: whole_since(client.records, back), f"{name} answers after {number.name} of {role}")
        self.outages.append(Outage(f"{number.name} of {role}", moment, time.monotonic()))

    def audit(self) -> AuditAccount:
        kills = [(outage.began, outage.began) for outage in self.outages if outage.what == f"{signal.SIGKILL.name} of gate"]
        return compare_audit(self.traffic.records, self.service.audit_lines(), [*self.service.hangs(), *kills])

    def as_json(self, warm_up_seconds: float) -> dict[str, Any]:
        audit = agreed(self.audit)
        outages = [(outage.began, outage.ended) for outage in self.outages]
        samples = {role: [sample for sample in self.watch.samples if sample.role == role] for role in ROLES}
        samples = {role: found if role in OURS else serving(found, outages) for role, found in samples.items()}
        return {
            "schema": 1,
            "seconds": round(time.monotonic() - self.began, 1),
            "warm_up_seconds": warm_up_seconds,
            "requests": totals(self.traffic.records),
            "requests_by_kind": dict(Counter(record.kind for record in self.traffic.records)),
            "files": totals(self.files.records),
            "faults": dict(Counter(outage.what for outage in self.outages)),
            "outages": [asdict(outage) for outage in self.outages],
            "unexplained": [asdict(record) for record in unexplained([*self.traffic.records, *self.files.records], self.outages)],
            "audit": audit.as_json(),
            "processes": {role: growth(found, warm_up_seconds) for role, found in samples.items()},
            "log_bytes_most": dict(sorted(self.watch.log_bytes_most.items())),
        }


def faults_of(result: dict[str, Any]) -> list[str]:
    """Why a soak is no success; empty when it is one."""
    found = [result["problem"]] if result["problem"] else []
    if result["unexplained"]:
        found.append(f"{len(result['unexplained'])} requests that no fault explains")
    if not result["audit"]["agrees"]:
        found.append("the audit does not agree with the answers")
    for role in OURS:
        row = result["processes"][role] or {}
        if (row.get("memory_mib_per_hour") or 0) > MOST_MIB_PER_HOUR:
            found.append(f"{role} grows by {row['memory_mib_per_hour']} MiB an hour")
    if result["left_by_stop"]:
        found.append(f"the stop left something: {result['left_by_stop']}")
    return found


def show(result: dict[str, Any]) -> None:
    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    print(f"\n{result['seconds']:.0f} s, faults: " + (", ".join(f"{what} {count}" for what, count in result["faults"].items()) or "none"))
    print("requests: " + ", ".join(f"{name} {count}" for name, count in result["requests"].items()))
    print("files:    " + ", ".join(f"{name} {count}" for name, count in result["files"].items() if count))
    print("\n".join(audit_text(result["audit"], result["outages"], SHOWN)))
    print(
        f"\n{'process':12}{'lives':>6}{'watched s':>11}{'MiB':>9}{'most':>9}{'MiB/h':>9}{'fds':>6}{'most':>6}{'fds/h':>8}{'threads':>9}{'most':>6}{'thr/h':>8}"
    )
    for role, row in result["processes"].items():
        if row:
            print(
                f"{role:12}{row['processes']:6}{row['watched_seconds']:11.0f}{row['memory_mib']:9.1f}{row['memory_mib_most']:9.1f}"
                f"{cell(row['memory_mib_per_hour'], '+.1f'):>9}{row['descriptors']:6}{row['descriptors_most']:6}{cell(row['descriptors_per_hour'], '+.1f'):>8}"
                f"{row['threads']:9}{row['threads_most']:6}{cell(row['threads_per_hour'], '+.1f'):>8}"
            )
    print("\nlargest:  " + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in result["log_bytes_most"].items() if size > 10_000))
    for record in result["unexplained"][:SHOWN]:
        print(f"UNEXPLAINED: {record['kind']} {record['verdict']}: {record['detail']}")
    for fault in faults_of(result):
        print(f"FAILED: {fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--fault-seconds", type=float, default=90.0, help="between two faults, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background a shell has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    problem, seconds = "", options.minutes * 60
    warm_up_seconds = min(300.0, max(20.0, seconds / 10))
    with tempfile.TemporaryDirectory() as folder:
        service = DemoService(Path(folder), HANG_TIMEOUT=HANG_SECONDS, LOG_MAX_MB=LOG_MAX_MB, PROBE_INTERVAL=2)
        media = make_media(service.media_root)
        with running(service):
            traffic = Traffic(service.url, MODEL, kinds(media, service.media_url), options.clients, PATIENCE_SECONDS, options.seed)
            soak = Soak(service, traffic, FileClient(service.media_url, media), Watch(service), options.seed)
            traffic.learn()
            for part in (traffic, soak.files, soak.watch):
                part.start()
            try:
                soak.run(seconds, options.fault_seconds)
            except (KeyboardInterrupt, NotBackError) as stopped:
                problem = str(stopped) or "interrupted"
            for part in (soak.watch, traffic, soak.files):
                part.end()
            result = soak.as_json(warm_up_seconds) | {"problem": problem}
        result["left_by_stop"] = service.stop_problem
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 1 if faults_of(result) else 0


if __name__ == "__main__":
    sys.exit(main())
