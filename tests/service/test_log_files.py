from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from qwen_fp8_ops.gate.audit import AuditLog, Entry
from qwen_fp8_ops.outside.files import append_json
from qwen_fp8_ops.service.log_files import KEPT, Tail, cut, cut_all, last_lines, renew, rotate


def test_each_attempt_has_its_own_file(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    for attempt in range(KEPT + 5):
        rotate(log)
        log.write_text(f"attempt {attempt}")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept["service.log"] == f"attempt {KEPT + 4}"
    assert kept["service.log.1"] == f"attempt {KEPT + 3}"
    assert len(kept) == KEPT + 1


def test_cut_empties_the_file_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    program = "import sys\nfor line in sys.stdin: print('x' * 99, flush=True); print('done', file=sys.stderr, flush=True)"
    with (
        log.open("ab") as output,
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.PIPE, text=True) as writer,
    ):
        assert writer.stdin and writer.stderr

        def write() -> None:
            assert writer.stdin and writer.stderr
            writer.stdin.write("go\n")
            writer.stdin.flush()
            writer.stderr.readline()

        write()
        assert not cut(log, 1000)
        for _ in range(10):
            write()
        assert cut(log, 1000)
        write()
        assert log.stat().st_size == 100, "the writer goes on at the beginning, without a hole"
        assert (tmp_path / "service.log.1").stat().st_size == 1100
        writer.stdin.close()


def test_no_line_of_the_audit_is_lost_when_it_is_rotated_under_the_gate(tmp_path: Path) -> None:
    path, count = tmp_path / "audit.jsonl", 4000
    audit, done, rotations = AuditLog(str(path)), threading.Event(), [False]

    def rotate_on() -> None:
        while not done.is_set():
            rotations.append(renew(path, 200_000))

    rotator = threading.Thread(target=rotate_on)
    rotator.start()
    for number in range(count):
        audit.record(Entry(0.0, f"{number}", None, None, "POST", "/x", 200, 1.0, 1, 1, False, True, b""))
        if number % 40 == 39:
            assert audit.flush(60)
    done.set()
    rotator.join()
    assert not audit.dropped
    ids = [json.loads(line)["id"] for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert 0 < sum(rotations) < KEPT
    assert sorted(ids, key=int) == [str(number) for number in range(count)]


def test_every_log_that_outgrew_its_size_is_shortened(tmp_path: Path) -> None:
    held, events, small, gone = (tmp_path / name for name in ("service.log", "events.jsonl", "media.log", "supervisor.log"))
    held.write_bytes(b"x" * 2000)
    for number in range(100):
        append_json(events, {"event": "x", "number": number})
    small.write_text("short")
    cut_all([held, small, gone], [events, tmp_path / "audit.jsonl"], 1000)
    append_json(events, {"event": "after"})
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir() if path.name != "events.jsonl.1"} == {
        "service.log": 0, "service.log.1": 2000, "media.log": 5, "events.jsonl": len('{"event": "after"}') + 1,
    }  # fmt: skip
    assert (tmp_path / "events.jsonl.1").read_text().count("\n") == 100


def test_last_lines_takes_a_progress_bar_for_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"one\n 0%\r50%\r100%\n\nlast\n")
    assert last_lines(log, 3) == ["50%", "100%", "last"]
    assert last_lines(tmp_path / "none", 3) == []


def test_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    tail = Tail(log)
    assert list(tail.lines()) == []
    log.write_text("one\ntw")
    assert list(tail.lines()) == ["one"]
    with log.open("a") as file:
        file.write("o\n")
    assert list(tail.lines()) == ["two"]
    assert list(tail.lines()) == []
