"""How soon a killed engine answers again, over a plain restart of it, and what became of every request meanwhile.

    python benchmarks/recovery.py [--rounds 10] [--clients 4] [--json]

The demo service (the real vLLM on the CPU) under load. Each round: a plain restart, kill -9 of the engine's core; a plain restart,
kill -9 of the API server. Recovery is from the kill to the first whole answer to a request that was sent after it; it has three
parts: until the supervisor has noticed, judged and swept up, the restart delay (1 s after a first death, by policy), and the start.
A plain restart is from the start of the engine's process to the first whole answer after it, under the same load: what no recovery
can be quicker than. Target: a ratio of at most 1.10, the delay counted.

The requests: each is answered whole, or its client is told; none silent, none wrong. Every answer has one line in the audit, of its own
status. Rightly missing are lines that died with an API server that was killed outright (by us, or by the supervisor because it hung or a
plain restart took too long): of answers under way, and of those of the last moment, which it had not written yet. A request without an
answer may have a line or none. Every difference is named. Loopback only, ends by itself; Ctrl+C prints what there is. Half an hour for
ten rounds on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.under_load.accounts import AuditAccount, Outage, audit_text, compare_audit, totals, unexplained, whole_since
from benchmarks.under_load.demo_service import MODEL, DemoService, NotBackError, agreed, running, wait_until
from benchmarks.under_load.traffic import Kind, Traffic
from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL

VICTIMS = {"EngineCore": "engine-core", "API server": "gate"}
TARGET = 1.10
PATIENCE_SECONDS = 600.0
SHOWN = 20


@dataclass(frozen=True)
class Round:
    """Seconds. ``recovery`` is ``noticed`` + ``delay`` + ``start``."""

    victim: str
    plain: float
    recovery: float
    noticed: float
    delay: float
    start: float

    @property
    def ratio(self) -> float:
        return self.recovery / self.plain

    def text(self) -> str:
        return (
            f"{self.victim:10}  plain {self.plain:6.2f} s  recovery {self.recovery:6.2f} s = noticed {self.noticed:5.2f}"
            f" + delay {self.delay:5.2f} + start {self.start:6.2f}  ratio {self.ratio:.3f}"
        )


class Course:
    """One service and its clients through all rounds."""

    def __init__(self, service: DemoService, traffic: Traffic) -> None:
        self.service = service
        self.traffic = traffic
        self.rounds: list[Round] = []
        self.outages: list[Outage] = []
        self.kills: list[tuple[float, float]] = []
        self.forced_stops = 0

    def round(self, victim: str) -> Round:
        """
        Raises:
            NotBackError: the engine did not come back.
        """
        plain = self._plain()
        self._load_is_on()
        killed = wait_until(lambda: self.service.send(VICTIMS[victim], signal.SIGKILL), f"there is a process to kill: {victim}")
        if VICTIMS[victim] == "gate":
            self.kills.append((killed, killed))  # otherwise the gate's process ends by itself, and its last lines must be there
        answered = self._answered_after(killed)
        self.outages.append(Outage(f"kill -9 of {victim}", killed, answered))
        died = self.service.event_after(killed, "program-died", "engine0")
        started = self.service.event_after(killed, "program-started", "engine0")
        if died is None or started is None:
            raise NotBackError(f"the events do not tell of the death of {victim}")
        found = Round(victim, plain, answered - killed, died["moment"] - killed, started["moment"] - died["moment"], answered - started["moment"])
        self.rounds.append(found)
        return found

    def _plain(self) -> float:
        self._load_is_on()
        asked = self.service.send("supervisor", RESTART_SIGNAL)
        assert asked is not None
        event = wait_until(lambda: self.service.event_after(asked, "program-started", "engine0"), "the engine is restarted")
        if not self.service.engine_ended_by_itself():  # in the time that the ladder gives it: on a busy machine it may need more
            self.forced_stops += 1
            self.kills.append((asked, event["moment"]))
        answered = self._answered_after(event["moment"])
        self.outages.append(Outage("plain restart", asked, answered))
        return answered - float(event["moment"])

    def _load_is_on(self) -> None:
        """The service has settled, and every client has had two answers since."""
        wait_until(lambda: self.service.event_after(self.outages[-1].began if self.outages else 0, "program-ready", "engine0"), "the engine is ready")
        now = time.monotonic()
        wait_until(lambda: len(whole_since(self.traffic.records, now)) >= 2 * self.traffic.clients, "requests are answered")

    def _answered_after(self, moment: float) -> float:
        found = wait_until(lambda: whole_since(self.traffic.records, moment), "a request is answered again")
        return float(min(record.ended for record in found))

    def audit(self) -> AuditAccount:
        return compare_audit(self.traffic.records, self.service.audit_lines(), [*self.kills, *self.service.hangs()])

    def as_json(self) -> dict[str, Any]:
        audit = agreed(self.audit)
        bad = unexplained(self.traffic.records, self.outages)
        return {
            "schema": 1,
            "rounds": [{**asdict(one), "ratio": round(one.ratio, 4)} for one in self.rounds],
            "medians": {victim: medians([one for one in self.rounds if one.victim == victim]) for victim in VICTIMS},
            "target_ratio": TARGET,
            "requests": totals(self.traffic.records),
            "forced_stops_of_plain_restarts": self.forced_stops,
            "unexplained": [asdict(record) for record in bad],
            "audit": audit.as_json(),
            "outages": [asdict(outage) for outage in self.outages],
        }


def medians(rounds: Sequence[Round]) -> dict[str, float] | None:
    if not rounds:
        return None
    names = ("plain", "recovery", "noticed", "delay", "start", "ratio")
    return {name: round(median(getattr(one, name) for one in rounds), 4) for name in names}


def show(result: dict[str, Any]) -> None:
    print(f"\n{'median':12}{'plain s':>9}{'recovery s':>12}{'noticed s':>11}{'delay s':>9}{'start s':>9}{'ratio':>8}")
    for victim, row in result["medians"].items():
        if row:
            print(f"{victim:12}{row['plain']:9.2f}{row['recovery']:12.2f}{row['noticed']:11.2f}{row['delay']:9.2f}{row['start']:9.2f}{row['ratio']:8.3f}")
    print(f"(target: a ratio of at most {TARGET:.2f}, the restart delay counted)\n")
    print("requests: " + ", ".join(f"{name} {count}" for name, count in result["requests"].items()))
    print("\n".join(audit_text(result["audit"], result["outages"], SHOWN)))
    if result["forced_stops_of_plain_restarts"]:
        print(f"plain restarts in which the engine did not end in its own time and was killed: {result['forced_stops_of_plain_restarts']}")
    for record in result["unexplained"][:SHOWN]:
        print(f"UNEXPLAINED: {record['kind']} {record['verdict']}: {record['detail']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background a shell has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    problem = ""
    with tempfile.TemporaryDirectory() as folder, running(DemoService(Path(folder), PROBE_INTERVAL=10)) as service:
        traffic = Traffic(service.url, MODEL, [Kind("text")], options.clients, PATIENCE_SECONDS)
        course = Course(service, traffic)
        traffic.learn()
        traffic.start()
        try:
            for number in range(options.rounds):
                for victim in VICTIMS:
                    found = course.round(victim)
                    if not options.json:
                        print(f"round {number + 1}: {found.text()}", flush=True)
        except (KeyboardInterrupt, NotBackError) as stopped:
            problem = str(stopped) or "interrupted"
        traffic.end()
        result = course.as_json() | {"problem": problem}
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
        if problem:
            print(f"Ended early: {problem}")
    return 1 if problem or result["unexplained"] or not result["audit"]["agrees"] else 0


if __name__ == "__main__":
    sys.exit(main())
