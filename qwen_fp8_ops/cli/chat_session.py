"""A conversation at the terminal: a line is a question, a line that begins with / is for this program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress

from qwen_fp8_ops.cli.chat_answer import Answer
from qwen_fp8_ops.cli.chat_screen import Screen
from qwen_fp8_ops.client.answers import Delta
from qwen_fp8_ops.client.media_types import Kind
from qwen_fp8_ops.client.messages import Part, assistant_message, user_message
from qwen_fp8_ops.errors import OpsError

Ask = Callable[[Sequence[Part], Callable[[Delta], None]], Answer]
"""Asks the model with these messages, gives each piece of the answer to the function; returns when the answer is complete."""

Attach = Callable[[str, Kind], Part]

HELP = """\
/image PATH   send an image with the next question; /video PATH a video
/reset        forget what was said
/exit         end; so does Ctrl+D. Ctrl+C stops an answer"""


class Session:
    """Turns that were answered. What was attached waits for the next question; a question that failed leaves no trace."""

    def __init__(
        self,
        ask: Ask,
        attach: Attach,
        tell: Callable[[Answer], None],
        say: Callable[[str], None],
        *,
        system: Sequence[Part],
        media: Sequence[Part],
        show_thinking: bool,
    ) -> None:
        """``tell`` adds the notes to a complete answer; ``media`` goes with the first question."""
        self._ask = ask
        self._attach = attach
        self._tell = tell
        self._say = say
        self._system = list(system)
        self._media = list(media)
        self._turns: list[Part] = []
        self._show_thinking = show_thinking

    def run(self) -> None:
        """Until /exit or the end of input."""
        with suppress(ImportError):  # some Pythons are built without it; input() then has no line editing
            import readline  # noqa: F401  its import alone gives input() editing and a history
        self._say("Ask away. /help lists the commands, Ctrl+D ends.")
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                self._say("")
                return
            except KeyboardInterrupt:
                self._say("\nCtrl+D or /exit ends.")
                continue
            except UnicodeDecodeError:
                self._say("That line is not valid text in this terminal's encoding.")
                continue
            if line and not self.handle(line):
                return

    def handle(self, line: str) -> bool:
        """One line; False when it ends the session."""
        word, _, rest = line.partition(" ")
        if not word.startswith("/") or "/" in word[1:]:  # a path is no command
            self._question(line)
        elif word == "/exit":
            return False
        elif word == "/reset":
            self._turns, self._media = [], []
            self._say("Forgotten.")
        elif word in ("/image", "/video"):
            self._add(rest.strip(), "image" if word == "/image" else "video")
        elif word == "/help":
            self._say(HELP)
        else:
            self._say(f"There is no command {word}.\n{HELP}")
        return True

    def _add(self, path: str, kind: Kind) -> None:
        if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
            path = path[1:-1]  # as a file manager pastes it
        if not path:
            self._say(f"Which {kind}? /{kind} PATH")
            return
        try:
            self._media.append(self._attach(path, kind))
        except OpsError as error:
            self._explain(error)
            return
        self._say(f"The {kind} goes with your next question.")

    def _question(self, text: str) -> None:
        question = user_message(text, self._media)
        screen = Screen(show_thinking=self._show_thinking)
        try:
            with closing(screen):
                answer = self._ask([*self._system, *self._turns, question], screen.show)
            self._tell(answer)
        except KeyboardInterrupt:
            self._say("(stopped)")
        except OpsError as error:
            self._explain(error)
            return
        if screen.answer:
            self._turns += [question, assistant_message(screen.answer)]
            self._media = []

    def _explain(self, error: OpsError) -> None:
        self._say(f"Error: {error.message}")
        for line in error.fix.splitlines():
            self._say(f"  {line}")
