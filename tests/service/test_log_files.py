from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from qwen_fp8_ops.service.log_files import KEPT, Tail, cut, last_lines, rotate


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
