"""Settings files as editors, shells and accidents leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.config.env_file import Entry, env_line, read_env_file, shown


def read(folder: Path, data: bytes) -> list[Entry]:
    path = folder / "some.env"
    path.write_bytes(data)
    return list(read_env_file(path, "some.env"))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("PORT=8010", "8010"),
        ("  PORT = 8010  ", "8010"),
        ("export PORT=8010", "8010"),
        ('PORT="8010"', "8010"),
        ("PORT='8010'", "8010"),
        ("PORT=8010 # the API", "8010"),
        ("PORT='8010' # the API", "8010"),
        ("PORT=", ""),
        ("PORT= # nothing", ""),
        ("PORT=a=b=c", "a=b=c"),
        ("PORT=a#b", "a#b"),
        ("PORT='a # b'", "a # b"),
        ("PORT=${HOME}/$X", "${HOME}/$X"),
        ("PORT=$(touch x)", "$(touch x)"),
        ("PORT=a b  c", "a b  c"),
        ('PORT="it\'s \\"so\\""', "it's \"so\""),
        ("PORT=책 é", "책 é"),
    ],
)
def test_one_line_gives_its_text(tmp_path: Path, line: str, text: str) -> None:
    assert read(tmp_path, line.encode()) == [Entry("some.env line 1", "PORT", text)]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf# first\r\n\r\n\r\nPORT=1\r\nnonsense here\r\n\r\n# more\r\nHOST=x\r\nonly_key\r\n"
    found = {entry.origin: entry.key or entry.problem.partition(":")[0] for entry in read(tmp_path, data)}
    assert found == {
        "some.env line 4": "PORT",
        "some.env line 5": "not of the form KEY=value",
        "some.env line 8": "HOST",
        "some.env line 9": "only_key has no =value",
    }


def test_old_macintosh_line_ends(tmp_path: Path) -> None:
    assert [(entry.origin, entry.key) for entry in read(tmp_path, b"A=1\r\rB=2\r")] == [("some.env line 1", "A"), ("some.env line 3", "B")]


def test_a_key_that_stands_twice_is_a_problem_that_names_both_lines(tmp_path: Path) -> None:
    first, second = read(tmp_path, b"PORT=1\n\nPORT=2\n")
    assert (first.origin, first.text) == ("some.env line 1", "1")
    assert (second.origin, second.problem) == ("some.env line 3", "PORT stands twice; it is first given in line 1")


def test_a_quote_that_does_not_end_is_a_problem_at_its_line(tmp_path: Path) -> None:
    first, second = read(tmp_path, b'PORT=1\nHOST="abc\nMEDIA_PORT=2\n')[:2]
    assert first.text == "1"
    assert (second.origin, second.problem) == ("some.env line 2", 'not of the form KEY=value: HOST="abc')


def test_a_multiline_value_does_not_shift_the_lines_after_it(tmp_path: Path) -> None:
    first, second = read(tmp_path, b"A='x\ny'\nB=2\n")
    assert (first.text, second.origin) == ("x\ny", "some.env line 3")


@pytest.mark.parametrize(("data", "problem"), [(b"A=\xff", "not UTF-8 text (byte 2)"), (b"#" * (2 << 20), "larger than 1 MiB")])
def test_what_is_no_settings_file_is_one_problem(tmp_path: Path, data: bytes, problem: str) -> None:
    (entry,) = read(tmp_path, data)
    assert entry.problem.startswith((problem, f"cannot be read: {problem}"))


def test_a_folder_a_pipe_and_a_dead_link_are_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    problems = {path.name: next(read_env_file(path, "x")).problem for path in (tmp_path, tmp_path / "link", tmp_path / "pipe")}
    assert problems == {
        tmp_path.name: "cannot be read: Is a directory",
        "link": "cannot be read: No such file or directory",
        "pipe": "cannot be read: a pipe, not a file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.env"
    path.write_text("A=1")
    path.chmod(0)
    assert next(read_env_file(path, "x")).problem == "cannot be read: Permission denied"


def test_nothing_to_read_gives_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == read(tmp_path, b"\n\n# only words\n  \n") == list(read_env_file(Path(os.devnull), "x")) == []


@given(text=st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=60).map(str.strip))
def test_a_written_line_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "written.env"
    path.write_text(f"{env_line('KEY', text)}\n{env_line('NEXT', '1')}\n", encoding="utf-8")
    assert [(entry.key, entry.text) for entry in read_env_file(path, "x")] == [("KEY", text), ("NEXT", "1")]


@given(data=st.binary(max_size=200) | st.text(st.sampled_from("AB=#'\"\\ \t\r\n$\0\ufeff"), max_size=60).map(str.encode))
def test_any_bytes_are_read_without_an_exception(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for entry in read(tmp_path_factory.getbasetemp(), data):
        assert bool(entry.problem) != bool(entry.key)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("8010x", "8010x"),
        ("a\x1b[31m\n\udce9", "a\\x1b[31m\\n\\udce9"),
        ("x" * 100, "x" * 77 + "..."),
        ("hf_abcdefgh", "hf_***"),
        ("--api-key abc --port 1", "--api-key *** --port 1"),
        ("HF_TOKEN=abc", "HF_TOKEN=***"),
        ("Bearer abc", "Bearer ***"),
        ("--max-num-batched-tokens 12", "--max-num-batched-tokens 12"),
    ],
)
def test_a_message_shows_no_control_characters_and_no_secrets(text: str, seen: str) -> None:
    assert shown(text) == seen
