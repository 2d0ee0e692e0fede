"""How the text of one setting becomes a value, and how it is said when it cannot.

A kind is a small object with two methods: ``parse(text) -> value`` raises ``ValueError`` whose text completes the sentence
"PORT=abc: ...", and ``allowed()`` says in words what would have been right. The text comes without space around it.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from dataclasses import dataclass
from typing import Protocol


class Kind(Protocol):
    def parse(self, text: str) -> object: ...

    def allowed(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """Any text; ``needed`` refuses the empty one."""

    what: str = "text"
    needed: bool = False

    def parse(self, text: str) -> str:
        _refuse_control_characters(text)
        if self.needed and not text:
            raise ValueError("a value is needed")
        return text

    def allowed(self) -> str:
        return self.what


@dataclass(frozen=True)
class Place:
    """A file or a folder. Only a leading ~ is expanded: a folder that is really called ``$HOME`` is what nobody meant."""

    what: str
    needed: bool = False

    def parse(self, text: str) -> str:
        place = Text(self.what, self.needed).parse(text)
        if re.search(r"\$[({A-Z_]", place):
            raise ValueError("variables are not expanded here; write the path itself")
        return place

    def allowed(self) -> str:
        return self.what


@dataclass(frozen=True)
class Matching:
    """Text of one shape."""

    pattern: str
    what: str

    def parse(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError("not of the right form")
        return text

    def allowed(self) -> str:
        return self.what


@dataclass(frozen=True)
class Whole:
    """A whole number between two bounds, both allowed."""

    low: int
    high: int
    unit: str = ""

    def parse(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError("not a whole number")
        value = int(text)
        if not self.low <= value <= self.high:
            raise ValueError("out of range")
        return value

    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}" + (f" ({self.unit})" if self.unit else "")


AUTO_PORT = 0
"""The value of a port that is chosen at the start."""


@dataclass(frozen=True)
class Port:
    """A port's number, or ``auto``."""

    def parse(self, text: str) -> int:
        return AUTO_PORT if text.lower() == "auto" else Whole(1, 65535).parse(text)

    def allowed(self) -> str:
        return "a port from 1 to 65535, or auto"


@dataclass(frozen=True)
class Decimal:
    """A number between two bounds, both allowed."""

    low: float
    high: float
    unit: str = ""

    def parse(self, text: str) -> float:
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", text):
            raise ValueError("not a number")
        value = float(text)
        if not self.low <= value <= self.high:
            raise ValueError("out of range")
        return value

    def allowed(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}" + (f" ({self.unit})" if self.unit else "")


@dataclass(frozen=True)
class Choice:
    """One of a few words, in any case."""

    words: tuple[str, ...]

    def parse(self, text: str) -> str:
        word = text.lower()
        if word not in self.words:
            raise ValueError("unknown choice")
        return word

    def allowed(self) -> str:
        return " or ".join(self.words) if len(self.words) == 2 else "one of " + ", ".join(self.words)


@dataclass(frozen=True)
class Switch:
    """on or off; yes/no, true/false and 1/0 are understood."""

    def parse(self, text: str) -> bool:
        word = text.lower()
        if word in ("on", "yes", "true", "1"):
            return True
        if word in ("off", "no", "false", "0"):
            return False
        raise ValueError("neither on nor off")

    def allowed(self) -> str:
        return "on or off"


@dataclass(frozen=True)
class Names:
    """Names separated by commas or spaces, as a tuple without repeats."""

    what: str
    pattern: str

    def parse(self, text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(re.split(r"[,\s]+", text.strip()))) if text.strip() else ()
        for name in names:
            if not re.fullmatch(self.pattern, name):
                raise ValueError(f"{name!r} is not a name of the right form")
        return names

    def allowed(self) -> str:
        return self.what


@dataclass(frozen=True)
class Arguments:
    """Command-line words, split as a shell would, run by no shell."""

    def parse(self, text: str) -> tuple[str, ...]:
        _refuse_control_characters(text, but="\n\t")
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise ValueError(f"quotes do not pair up ({error})") from None
        return words

    def allowed(self) -> str:
        return "command-line words; quotes group them"


def _refuse_control_characters(text: str, *, but: str = "") -> None:
    """They would break command lines and log lines; a lone surrogate is how Python carries bytes that are not UTF-8."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise ValueError("not UTF-8 text")
        if category == "Cc" and character not in but:
            raise ValueError("control characters are not allowed")
