from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from click.testing import CliRunner

from qwen_fp8_ops.cli import qwen_fp8, run
from qwen_fp8_ops.cli.target import first_key
from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.outside import lock, process
from tests.client.stub_server import MODEL, Handler, StubServer, chunk, event, last_text, like_vllm, serving, silent, stream_of, whole, without_end
from tests.media_files import make_image, make_video
from tests.ports import free_port

CHECKOUT = Path(__file__).parents[2]
WAIT_SECONDS = 60
CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Chat = Callable[..., Told]


@pytest.fixture
def server() -> Iterator[StubServer]:
    with serving() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home with spaces"
    (home / "run").mkdir(parents=True)
    monkeypatch.setenv("QWEN_FP8_HOME", str(home))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def chat(home: Path, capsys: pytest.CaptureFixture[str]) -> Chat:
    def chat(*arguments: str) -> Told:
        code = run(["chat", *arguments])
        told = capsys.readouterr()
        return Told(code, told.out, told.err)

    return chat


def write(path: Path, value: object, mode: int = 0o600) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)


def service(home: Path, url: str, state: str = "ready", **endpoint: Any) -> None:
    """The files of a run whose supervisor is this very process."""
    me = process.identify(os.getpid())
    assert me is not None
    write(
        home / "run/endpoint.json",
        {"schema": 1, "host": me.host, "url": f"{url}/v1", "media_url": "http://127.0.0.1:1", "model": MODEL, "key_file": None} | endpoint,
    )
    programs = [{"name": "media", "role": "media", "state": "ready", "identity": None, "problem": ""}]
    media = {"url": "http://127.0.0.1:1", "root": str(home / "media")}
    write(home / "run/state.json", {"schema": 1, "state": state, "supervisor": me.as_json(), "programs": programs, "media": media})
    write(home / "run/plan.json", {"schema": 1, "media_root": str(home / "media"), "settings": {"MAX_BODY_MB": "1", "START_TIMEOUT": "60"}})


# --- the service of this folder ---------------------------------------------------------------------------------------------


def test_nothing_runs(chat: Chat) -> None:
    told = chat("hello")
    assert told.code == 3
    assert told.err == "Error: The service is not running\n  ./start_service.sh\n"


def test_a_failed_service_says_why(chat: Chat, home: Path) -> None:
    write(home / "run/state.json", {"schema": 1, "state": "failed", "error": {"code": "x", "message": "Port 8010 is taken", "fix": ""}})
    told = chat("hello", "--json")
    assert told.code == 3
    assert told.json["error"]["code"] == "not-running"
    assert "Port 8010 is taken" in told.json["error"]["message"]


def test_a_dead_supervisor_is_not_believed(chat: Chat, home: Path) -> None:
    service(home, "http://127.0.0.1:1", "starting")
    state = json.loads((home / "run/state.json").read_text())
    state["supervisor"]["start_ticks"] -= 1
    write(home / "run/state.json", state)
    told = chat("hello", "--wait")
    assert told.code == 3
    assert "is gone" in told.err


def test_a_service_that_is_starting_tells_its_phase(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url, "starting")
    state = json.loads((home / "run/state.json").read_text())
    write(home / "run/state.json", state | {"load": {"phase": "weights", "done": 3, "total": 24}})
    told = chat("hello")
    assert told.code == 3
    assert "not ready yet: loading weights 3/24" in told.err
    assert "--wait" in told.err
    assert not server.requests


@pytest.mark.parametrize("before", ["stopped", "failed", None])
def test_a_start_that_has_recorded_nothing_yet(chat: Chat, home: Path, server: StubServer, before: str | None) -> None:
    """What the run before left behind, state.json or nothing, says nothing about it."""
    service(home, server.url, before or "stopped")
    if before is None:
        (home / "run/state.json").unlink()
    me = process.identify(os.getpid())
    assert me is not None
    assert lock.acquire(home / "run/lock", me) is None
    told = chat("hello")
    assert (told.code, told.out) == (3, "")
    assert "not ready yet: preflight" in told.err
    lock.release(home / "run/lock", me)
    assert chat("hello").code == (0 if before is None else 3)


def test_wait_waits_until_it_serves(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url, "starting")
    done = threading.Timer(0.2, lambda: service(home, server.url, "ready"))
    done.start()
    told = chat("hello", "--wait", "--no-thinking")
    done.join()
    assert (told.code, told.out) == (0, "You said: hello\n")
    assert "waiting: starting" in told.err


def test_wait_has_an_end(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url, "starting")
    write(home / "run/plan.json", {"settings": {"START_TIMEOUT": "0"}})
    assert chat("hello", "--wait").code == 6


def test_model_and_key_come_from_the_run(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url)
    write(home / "run/keys", "supervisor:internal-key:with-colon\n")
    told = chat("hello")
    assert (told.code, told.out, told.err) == (0, "You said: hello\n", "")
    assert server.asked["model"] == MODEL
    assert server.requests[0].headers["authorization"] == "Bearer internal-key:with-colon"


def test_the_operators_key_where_the_internal_one_is_missing(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url, key_file=str(home / "api keys"))
    write(home / "api keys", "# ours\n\nalice:alice-key\nbob:bob-key\n")
    assert chat("hello").code == 0
    assert server.requests[0].headers["authorization"] == "Bearer alice-key"


def test_a_given_key_file_wins(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url)
    write(home / "run/keys", "supervisor:internal-key\n")
    write(home / "mine", "my-key\n")
    assert chat("hello", "--key-file", str(home / "mine"), "--model", MODEL).code == 0
    assert server.requests[0].headers["authorization"] == "Bearer my-key"


def test_the_environments_key_is_not_for_our_own_service(chat: Chat, home: Path, server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-elsewhere")
    service(home, server.url)
    assert chat("hello").code == 0
    assert "authorization" not in server.requests[0].headers


def test_an_endpoint_of_another_host_is_asked_there(chat: Chat, home: Path, server: StubServer) -> None:
    """A loopback address means the host that wrote it; the media server's folder there is not ours."""
    port = server.server_address[1]
    write(home / "run/endpoint.json", {"host": "127.0.0.1", "url": f"http://localhost:{port}/v1", "media_url": "http://127.0.0.1:1"})
    image = make_image(home / "a.png")
    write(home / "run/plan.json", {"media_root": str(home), "settings": {}})
    assert chat("hello", "--image", str(image)).code == 0
    assert server.requests[0].headers["host"] == f"127.0.0.1:{port}"
    assert server.asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:")


def test_the_service_is_gone(chat: Chat, home: Path) -> None:
    service(home, f"http://127.0.0.1:{free_port()}")
    told = chat("hello")
    assert told.code == 3
    assert "qwen-fp8 status" in told.err


def test_images_and_videos(chat: Chat, home: Path, server: StubServer) -> None:
    """Under the media root they go by name, elsewhere as data."""
    service(home, server.url)
    (home / "media").mkdir()
    inside, outside = make_image(home / "media" / "a b.png"), make_image(home / "c.jpg")
    video = make_video(home / "v.mp4", frames=2)
    assert chat("what is this", "--image", str(inside), "--image", str(outside), "--video", str(video), "--system", "be brief").code == 0
    system, question = server.asked["messages"]
    assert system == {"role": "system", "content": "be brief"}
    first, second, third, text = question["content"]
    assert first == {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a%20b.png"}}
    assert second["image_url"]["url"] == "data:image/jpeg;base64," + base64.b64encode(outside.read_bytes()).decode()
    assert third["video_url"]["url"].startswith("data:video/mp4;base64,")
    assert text == {"type": "text", "text": "what is this"}


def test_a_media_server_that_is_down_is_not_relied_on(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url, "degraded")
    state = json.loads((home / "run/state.json").read_text())
    state["programs"][0]["state"] = "down"
    write(home / "run/state.json", state)
    (home / "media").mkdir()
    assert chat("x", "--image", str(make_image(home / "media/a.png"))).code == 0
    assert server.asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:")


def test_files_are_checked_before_anything_is_sent(chat: Chat, home: Path, server: StubServer) -> None:
    service(home, server.url)
    (home / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(800_000))
    for name, code in {"gone.png": "no-such-file", "big.png": "too-large"}.items():
        told = chat("x", "--image", str(home / name), "--json")
        assert (told.code, told.json["error"]["code"]) == (1, code)
        assert name in told.json["error"]["message"]
    assert not server.requests


# --- an API that was named --------------------------------------------------------------------------------------------------


def test_a_named_server_gets_the_environments_key_and_no_model(chat: Chat, server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert chat("hello", "--server-url", server.url).out == "You said: hello\n"
    assert server.requests[0].headers["authorization"] == "Bearer sk-1"
    assert "model" not in server.asked


def test_sampling(chat: Chat, server: StubServer) -> None:
    options = ["--max-tokens", "9", "--temperature", "0", "--top-p", "0.5", "--seed", "-3", "--model", MODEL]
    assert chat("hello", "--server-url", server.url, *options).code == 0
    assert {key: server.asked[key] for key in ("max_tokens", "temperature", "top_p", "seed", "model")} == {
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": -3,
        "model": MODEL,
    }
    assert chat("hello", "--server-url", server.url).code == 0
    assert set(server.asked) == {"messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["hello", "--temperature", "nan"],
        ["hello", "--temperature", "3"],
        ["hello", "--top-p", "0"],
        ["hello", "--max-tokens", "0"],
        ["hello", "--seed", "x"],
        ["hello", "--timeout", "0"],
        ["hello", "--wait"],
        ["hello", "more"],
        [""],
        ["  "],
        [],
        ["--json"],
        ["hello", "--server-url", "ftp://host"],
    ],
)
def test_usage(chat: Chat, server: StubServer, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115  closed with the test
    told = chat("--server-url", server.url, *arguments)
    sys.stdin.close()
    assert told.code == 2
    assert "Error: " in told.err + told.out or json.loads(told.out)["ok"] is False
    assert not server.requests


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_json(chat: Chat, server: StubServer, stream: str) -> None:
    told = chat("hello", "--server-url", server.url, "--json", stream)
    value = told.json
    seconds, ttft = value.pop("seconds"), value.pop("ttft_seconds")
    assert value == {
        "schema": 1,
        "ok": True,
        "answer": "\n\nYou said: hello",
        "reasoning": "hmm",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        "model": MODEL,
        "request_id": "request-1",
    }
    assert ttft is None if stream == "--no-stream" else 0 < ttft <= seconds
    assert server.asked["stream"] is (stream == "--stream")
    assert told.err == ""


def test_json_without_thinking(chat: Chat, server: StubServer) -> None:
    assert chat("hello", "--server-url", server.url, "--json", "--no-thinking").json["reasoning"] is None


def test_verbose_tells_the_figures(chat: Chat, server: StubServer) -> None:
    told = chat("hello", "--server-url", server.url, "--verbose")
    assert told.out == "You said: hello\n"
    assert "7 + 5 tokens" in told.err
    assert "request-1" in told.err


@pytest.mark.parametrize(("answer", "words"), [("half an", "The answer was cut"), ("", "still thinking")])
def test_an_answer_that_was_cut_says_so(chat: Chat, answer: str, words: str) -> None:
    with serving(lambda handler: handler.give_json(whole("hmm", answer, "length"))) as server:
        told = chat("hello", "--server-url", server.url, "--no-stream")
    assert (told.code, told.out) == (0, f"{answer}\n" if answer else "")
    assert words in told.err
    assert "--max-tokens" in told.err


@pytest.mark.parametrize(
    ("status", "exit_code", "words"),
    [(400, 1, "no good"), (401, 1, "--key-file"), (429, 1, "Try again in 9 s."), (500, 1, "qwen-fp8 logs"), (503, 3, "Try again in 9 s.")],
)
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_refusals(chat: Chat, status: int, exit_code: int, words: str, stream: str) -> None:
    with serving(lambda handler: handler.give_error(status, "no good", Retry_After="9")) as server:
        told = chat("hello", "--server-url", server.url, stream)
    assert (told.code, told.out) == (exit_code, "")
    assert words in told.err
    assert "no good" in told.err


def test_silence_ends_with_its_own_code(chat: Chat) -> None:
    with serving(silent) as server:
        told = chat("hello", "--server-url", server.url, "--timeout", "0.1")
    assert told.code == 6
    assert "--timeout" in told.err


def cut_in_the_middle(handler: Handler) -> None:
    handler.begin_stream()
    handler.send_chunk(event(chunk({"content": "half"})))
    handler.cut()


def test_a_cut_answer_keeps_what_came(chat: Chat) -> None:
    with serving(cut_in_the_middle) as server:
        told = chat("hello", "--server-url", server.url)
        as_json = chat("hello", "--server-url", server.url, "--json")
    assert (told.code, told.out) == (1, "half\n")
    assert "broke before the answer was complete" in told.err
    assert as_json.json["error"]["code"] == "broken-answer"


# --- standard input, pipes, signals -----------------------------------------------------------------------------------------


def test_the_question_from_standard_input(home: Path, server: StubServer) -> None:
    done = CliRunner().invoke(qwen_fp8, ["chat", "-", "--server-url", server.url], input="line one\nline two ä\n")
    assert (done.exit_code, done.stdout) == (0, "You said: line one\nline two ä\n")
    assert last_text(server.asked) == "line one\nline two ä"


@pytest.mark.parametrize("text", [b"", b" \n", b"\xff\xfe"])
def test_standard_input_that_holds_no_question(home: Path, server: StubServer, text: bytes) -> None:
    done = CliRunner().invoke(qwen_fp8, ["chat", "-", "--server-url", server.url], input=text)
    assert done.exit_code == 2
    assert not server.requests


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "qwen_fp8_ops", "chat", *arguments]


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "QWEN_FP8_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "TERM": "xterm", **more}


def test_pipes(home: Path, server: StubServer) -> None:
    done = subprocess.run(command("-", "--server-url", server.url), input=b"over a pipe", capture_output=True, env=environment(home), timeout=WAIT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"You said: over a pipe\n", b"")


def test_letters_that_the_output_cannot_show_do_not_end_the_answer(home: Path, server: StubServer) -> None:
    done = subprocess.run(command("ä€", "--server-url", server.url), capture_output=True, env=environment(home, PYTHONIOENCODING="ascii"), timeout=WAIT_SECONDS)
    assert (done.returncode, done.stdout) == (0, b"You said: \\xe4\\u20ac\n")


def test_a_question_that_is_no_text(home: Path, server: StubServer) -> None:
    done = subprocess.run([*command("--server-url", server.url), b"\xff"], capture_output=True, env=environment(home), timeout=WAIT_SECONDS)
    assert done.returncode == 2
    assert b"not valid Unicode" in done.stderr


def test_a_reader_that_goes_away_is_no_failure(home: Path) -> None:
    with serving(without_end) as server:
        child = subprocess.Popen(command("x", "--server-url", server.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home))
        assert child.stdout is not None
        assert child.stdout.read(1) == b"o"
        child.stdout.close()
        assert server.gone.wait(WAIT_SECONDS)
        assert child.wait(WAIT_SECONDS) == 0
        assert child.stderr is not None
        assert child.stderr.read() == b""
        child.stderr.close()


@pytest.mark.parametrize("script", [without_end, silent])
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_ctrl_c_closes_the_connection(home: Path, script: Callable[[Handler], None], stream: str) -> None:
    with serving(script) as server:
        child = subprocess.Popen(command("x", stream, "--server-url", server.url), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(home))
        assert server.streaming.wait(WAIT_SECONDS)
        child.send_signal(signal.SIGINT)
        assert server.gone.wait(WAIT_SECONDS)
        _, err = child.communicate(timeout=WAIT_SECONDS)
    assert child.returncode == 130
    assert b"Error: Interrupted." in err
    assert b"Traceback" not in err


# --- at a terminal ----------------------------------------------------------------------------------------------------------


class Terminal:
    """Types into a child and reads what it shows."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.shown = b""

    def read_until(self, text: bytes) -> bytes:
        """What is shown up to and with ``text``; it is taken away."""
        while text not in self.shown:
            self.shown += self._read() or pytest.fail(f"ended without {text!r}: {self.shown!r}")
        before, found, self.shown = self.shown.partition(text)
        return before + found

    def read_all(self) -> bytes:
        while more := self._read():
            self.shown += more
        return self.shown

    def type(self, text: bytes) -> None:
        os.write(self._descriptor, text)

    def interrupt_prompt(self, text: bytes) -> bytes:
        """Ctrl+C at a prompt, until ``text``. Typed again after a while: a signal that comes between the prompt's last letter and
        the wait for keys is seen by Python's readline at the next key only.
        """
        while True:
            self.type(CTRL_C)
            while select.select([self._descriptor], [], [], 3)[0] and text not in self.shown:
                self.shown += self._read() or pytest.fail(f"ended without {text!r}: {self.shown!r}")
            if text in self.shown:
                return self.read_until(text)

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 65536)
        except OSError:  # how Linux tells that nobody holds the other end any more
            return b""


# The terminal is made the child's controlling one, so that Ctrl+C typed into it becomes a signal.
TAKE_TERMINAL = f"import fcntl, os, sys; fcntl.ioctl(2, {termios.TIOCSCTTY}, 0); os.execv(sys.argv[1], sys.argv[1:])"


@contextmanager
def terminal(
    home: Path, *arguments: str, stdout: int | None = None, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, b"\x18\x00\xf0\x00\x00\x00\x00\x00")  # 24 lines of 240 letters
    child = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command(*arguments)],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        start_new_session=True,
        env=environment(home, INPUTRC=os.devnull, **more),
    )
    os.close(theirs)
    try:
        yield Terminal(ours), child
        child.wait(WAIT_SECONDS)
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def test_thinking_is_dim_on_a_terminal(home: Path, server: StubServer) -> None:
    with terminal(home, "hello", "--server-url", server.url) as (screen, child):
        shown = screen.read_all()
    assert shown == b"\x1b[2mhmm\x1b[0m\r\n\r\nYou said: hello\r\n"
    assert child.returncode == 0


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_thinking_is_marked_in_words_without_colours(home: Path, server: StubServer, variable: dict[str, str]) -> None:
    with terminal(home, "hello", "--server-url", server.url, more=variable) as (screen, _):
        assert screen.read_all() == b"[thinking]\r\nhmm\r\n[end of thinking]\r\nYou said: hello\r\n"


def test_no_thinking_hides_it(home: Path, server: StubServer) -> None:
    with terminal(home, "hello", "--server-url", server.url, "--no-thinking") as (screen, _):
        assert screen.read_all() == b"You said: hello\r\n"


def test_thinking_stays_on_the_terminal_when_the_answer_goes_elsewhere(home: Path, server: StubServer, tmp_path: Path) -> None:
    with open(tmp_path / "answer", "wb") as file, terminal(home, "hello", "--server-url", server.url, stdout=file.fileno()) as (screen, _):
        assert screen.read_all() == b"\x1b[2mhmm\x1b[0m\r\n\r\n"
    assert (tmp_path / "answer").read_text() == "You said: hello\n"


def test_an_answer_cannot_steer_the_terminal(home: Path, tmp_path: Path) -> None:
    def hostile(handler: Handler) -> None:
        handler.give_json(whole("a\x1b]0;t\x07b", "c\x1b[2Jd\x9b\re\tf"))

    with serving(hostile) as server:
        with terminal(home, "x", "--server-url", server.url, "--no-stream") as (screen, _):
            assert screen.read_all() == b"\x1b[2ma]0;tb\x1b[0m\r\n\r\nc[2Jde\tf\r\n"
        with open(tmp_path / "answer", "wb") as file, terminal(home, "x", "--server-url", server.url, "--no-stream", stdout=file.fileno()):
            pass
    assert (tmp_path / "answer").read_bytes() == "c\x1b[2Jd\x9b\re\tf\n".encode()


def test_interrupted_thinking_leaves_the_terminal_as_it_was(home: Path) -> None:
    def thinks(handler: Handler) -> None:
        handler.begin_stream()
        handler.send_chunk(event(chunk({"reasoning": "deep"})))
        silent(handler)

    with serving(thinks) as server:
        with terminal(home, "x", "--server-url", server.url) as (screen, child):
            screen.read_until(b"\x1b[2mdeep")
            screen.type(CTRL_C)
            assert screen.read_until(b"Interrupted.").startswith(b"^C\x1b[0m\r\n")
        assert server.gone.wait(WAIT_SECONDS)
    assert child.returncode == 130


def test_a_conversation(home: Path, server: StubServer) -> None:
    image = make_image(home / "an image.png")
    with terminal(home, "--server-url", server.url, "--system", "be kind", "--no-thinking") as (screen, child):
        screen.read_until(b"> ")
        screen.type(b"first\n")
        screen.read_until(b"You said: first\r\n> ")
        screen.type(f"/image '{image}'\n".encode())
        screen.read_until(b"next question.\r\n> ")
        screen.type(b"second\n")
        screen.read_until(b"You said: second\r\n> ")
        assert [message["role"] for message in server.asked["messages"]] == ["system", "user", "assistant", "user"]
        assert server.asked["messages"][2]["content"] == "You said: first"
        assert server.asked["messages"][3]["content"][0]["type"] == "image_url"
        screen.type(b"/reset\n")
        screen.read_until(b"Forgotten.\r\n> ")
        screen.type(b"/tmp/x is a path\n")
        screen.read_until(b"You said: /tmp/x is a path\r\n> ")
        assert [message["role"] for message in server.asked["messages"]] == ["system", "user"]
        screen.type(UP + b"\n")
        screen.read_until(b"You said: /tmp/x is a path\r\n> ")
        screen.type(b"/exit\n")
    assert child.returncode == 0


def test_mistakes_do_not_end_a_conversation(home: Path, server: StubServer) -> None:
    with terminal(home, "--server-url", server.url, "--no-thinking") as (screen, child):
        screen.read_until(b"> ")
        for typed, answer in {
            b"/image\n": b"/image PATH",
            b"/image /gone.png\n": b"Error: There is no file /gone.png",
            b"/video " + os.fsencode(make_image(home / "a.png")) + b"\n": b"is an image (image/png), not a video",
            b"/unknown\n": b"There is no command /unknown",
            b"/help\n": b"forget what was said",
            b"\n": b"> ",
        }.items():
            screen.type(typed)
            screen.read_until(answer)
        assert not server.requests
        screen.type(b"still here\n")
        screen.read_until(b"You said: still here\r\n> ")
        screen.type(CTRL_D)
    assert child.returncode == 0


def test_ctrl_c_stops_an_answer_and_not_the_conversation(home: Path) -> None:
    def script(handler: Handler) -> None:
        (without_end if last_text(handler.request_body) == "count" else like_vllm)(handler)

    with serving(script) as server, terminal(home, "--server-url", server.url, "--no-thinking") as (screen, child):
        screen.read_until(b"> ")
        screen.interrupt_prompt(b"/exit ends.\r\n> ")
        screen.type(b"count\n")
        screen.read_until(b"on on ")
        screen.type(CTRL_C)
        screen.read_until(b"(stopped)\r\n> ")
        assert server.gone.wait(WAIT_SECONDS)
        screen.type(b"and now\n")
        screen.read_until(b"You said: and now\r\n> ")
        assert server.asked["messages"][1]["content"].startswith("on on ")
        screen.type(CTRL_D)
    assert child.returncode == 0


def test_a_question_that_failed_leaves_no_trace_and_keeps_its_image(home: Path) -> None:
    busy = threading.Event()

    def script(handler: Handler) -> None:
        if busy.is_set():
            like_vllm(handler)
        else:
            handler.give_error(429, "slow down", Retry_After="3")

    with serving(script) as server, terminal(home, "--server-url", server.url, "--no-thinking", "--image", str(make_image(home / "a.png"))) as (screen, child):
        screen.read_until(b"> ")
        screen.type(b"first\n")
        screen.read_until(b"Try again in 3 s.\r\n> ")
        busy.set()
        screen.type(b"second\n")
        screen.read_until(b"You said: second\r\n> ")
        (message,) = server.asked["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        screen.type(CTRL_D)
    assert child.returncode == 0


def test_a_streamed_answer_is_shown_piece_by_piece(home: Path) -> None:
    go_on = threading.Event()

    def script(handler: Handler) -> None:
        handler.begin_stream()
        first, *rest = stream_of("", "one two")[1:]
        handler.send_chunk(first)
        go_on.wait(WAIT_SECONDS)
        for data in rest:
            handler.send_chunk(data)
        handler.end_stream()

    with serving(script) as server:
        child = subprocess.Popen(command("x", "--server-url", server.url), stdout=subprocess.PIPE, env=environment(home))
        assert child.stdout is not None
        assert child.stdout.read(3) == b"one"
        go_on.set()
        assert child.stdout.read() == b" two\n"
        child.stdout.close()
        assert child.wait(WAIT_SECONDS) == 0


# --- small pieces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "key"), [("a:k1234567:x\n", "k1234567:x"), ("bare-key", "bare-key"), ("# no\n\n  b:second-key  \nc:third\n", "second-key")])
def test_first_key(tmp_path: Path, text: str, key: str) -> None:
    write(tmp_path / "keys", text)
    assert first_key(tmp_path / "keys") == key


def test_key_files_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "empty", "# nothing\n")
    with pytest.raises(ConfigError):
        first_key(tmp_path / "empty")
    write(tmp_path / "open", "a:geheim-geheim\n", mode=0o644)
    with pytest.raises(OpsError, match="open to others") as caught:
        first_key(tmp_path / "open")
    assert "geheim" not in caught.value.message
    with pytest.raises(OpsError):
        first_key(tmp_path / "gone")


def test_help_needs_no_http_library() -> None:
    code = "import sys; from qwen_fp8_ops.cli import run; run(['chat', '--help']); print([name for name in ('httpx', 'rich', 'psutil') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, timeout=WAIT_SECONDS)
    assert done.stdout.endswith("[]\n")
