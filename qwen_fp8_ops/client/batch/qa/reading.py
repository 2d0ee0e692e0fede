"""Reads what stands where an answer was declared: the choice it names, or why it names none.

``read_whole`` wants nothing but the choice (inside \\boxed{}, a JSON field, a line of its own); ``read_head`` lets a sentence go on
behind it (``B, because the sky is blue``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from qwen_fp8_ops.client.batch.qa import phrases
from qwen_fp8_ops.client.batch.qa.choices import Choices
from qwen_fp8_ops.client.batch.qa.normal import ARTICLE, fold, unwrap


class Kind(Enum):
    CHOSEN = "chosen"
    SEVERAL = "several"
    """Two letters, or a letter beside another choice's text."""
    OUTSIDE = "outside"
    """A letter that the question does not have."""
    UNDECIDED = "undecided"
    """It says that there is no answer."""
    DENIED = "denied"
    """It says what the answer is not."""
    NOTHING = "nothing"
    """It speaks of something else, so it declares nothing."""


@dataclass(frozen=True)
class Reading:
    kind: Kind
    letter: str = ""


NOTHING, SEVERAL, OUTSIDE, UNDECIDED = Reading(Kind.NOTHING), Reading(Kind.SEVERAL), Reading(Kind.OUTSIDE), Reading(Kind.UNDECIDED)

LEAD = re.compile(
    r"(?:(?:the|my|clearly|definitely|certainly|therefore|thus|indeed|simply|obviously|final|correct|right|best|most likely"
    r"|option|choice|letter|answer|选项|答案|image|figure|picture|point|opción|opcion|opção|opzione|lettre|buchstabe)\b[ :]*)+",
    re.IGNORECASE,
)
MARKED = re.compile(r"(?P<letter>[A-Za-z])\s*(?P<mark>[).\]:,]|[)\]][.:]|-(?=\s))\s*(?P<text>\S.*)", re.DOTALL)
IN_BRACKETS = re.compile(r"[(\[](?P<letter>[A-Za-z])[)\]]\s*[.:,-]?\s*(?P<text>\S.*)", re.DOTALL)
BEHIND = re.compile(r"(?P<text>.*\S)\s*[(\[](?:option |choice )?(?P<letter>[A-Z])[)\]]", re.DOTALL)
LIST_OF_LETTERS = re.compile(r"[(\[]?[A-Z][)\]]?(?:\s*(?:,|;|/|&|and|or|\+|和|或|与|及)+\s*[(\[]?[A-Z][)\]]?)+")
HEAD_LETTER = re.compile(r"[(\[]?(?P<letter>[A-Z])(?![A-Za-z0-9_']|-\w)[)\]]?")
ALSO = re.compile(r"(?:or|and)\b", re.IGNORECASE)
BOX = re.compile(r"\\+(?:boxed|fbox)\s*\{")
SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)[.](?=\s|$)|[\n?!]")
WORD = re.compile(r"\w+(?:[.,]\d+)*%?|[^\w\s]")
LONGEST_OPENING = 20
LONGEST = 2000
"""Characters of a declaration that are looked at; nobody names a choice at greater length."""


def read_whole(content: str, choices: Choices) -> Reading:
    """A text that should be a choice and nothing else. ``content`` is ``plain`` and without Markdown."""
    text = unwrap(_unboxed(content[:LONGEST]))
    named = LEAD.match(text)
    for words in (text, unwrap(text[named.end() :])) if named else (text,):
        found = _read(words, choices)
        if found.kind is not Kind.NOTHING:
            return found
    return NOTHING


def _read(text: str, choices: Choices) -> Reading:
    if alone := re.fullmatch(r"([A-Za-z])\s*[)\]]?", text):
        return _letter(alone[1], choices)
    if same := choices.letters_of(text):
        return Reading(Kind.CHOSEN, same[0]) if len(same) == 1 else SEVERAL
    if LIST_OF_LETTERS.fullmatch(text) or (len(text) > 1 and text.isupper() and text.isascii() and set(text) <= set(choices.letters)):
        return SEVERAL
    if marked := IN_BRACKETS.fullmatch(text) or MARKED.fullmatch(text) or BEHIND.fullmatch(text):
        return _letter_and_text(marked["letter"], marked["text"], choices)
    return UNDECIDED if phrases.UNDECIDED.match(text) else NOTHING


def _letter(letter: str, choices: Choices) -> Reading:
    """A letter is the choice it marks, even where another choice's text is that letter: letters are what was asked for."""
    if letter.upper() in choices.letters:
        return Reading(Kind.CHOSEN, letter.upper())
    if same := choices.letters_of(letter):
        return Reading(Kind.CHOSEN, same[0]) if len(same) == 1 else SEVERAL
    return OUTSIDE if letter.isupper() else NOTHING  # a small letter is a variable of mathematics, as likely as not


def _letter_and_text(letter: str, text: str, choices: Choices) -> Reading:
    """``B. blue``: the two must agree, where the text is that of a choice."""
    if letter.upper() not in choices.letters:
        return OUTSIDE if letter.isupper() and not choices.letters_of(text) and len(text.split()) < 8 else NOTHING
    same = choices.letters_of(text)
    if letter.upper() in same:
        return Reading(Kind.CHOSEN, letter.upper())
    if same:
        return SEVERAL
    # An explanation instead of the text: only behind a capital, and only where no text could be compared.
    return Reading(Kind.CHOSEN, letter) if letter.isupper() and not choices.text(letter) else NOTHING


def read_head(content: str, choices: Choices) -> Reading:
    """A text that begins with the choice: the rest of the line behind ``the answer is``. ``content`` as for ``read_whole``."""
    line = content[:LONGEST].strip()
    found = read_whole(line, choices)
    if found.kind is not Kind.NOTHING:
        return NOTHING if line.endswith("?") else found
    box = BOX.search(line[:LONGEST_OPENING])
    if box and not line[: box.start()].strip("$ "):
        inside, end = braced(line, box.end())
        found = read_whole(inside, choices)
        return found if found.kind is not Kind.CHOSEN else _with_rest(found, line[end:].lstrip("$ "), choices)
    lead = LEAD.match(line)
    for words in (line, line[lead.end() :]) if lead else (line,):
        found = _head(words.lstrip(" \"'*:("), choices)
        if found.kind is not Kind.NOTHING:
            return found
    return NOTHING


def _head(text: str, choices: Choices) -> Reading:
    if phrases.DENIED_START.match(text):
        letters = re.findall(r"(?<![\w'-])([A-Z])(?![\w'-])", _sentence(text))
        return Reading(Kind.DENIED, "".join(letters))
    if phrases.UNCERTAIN_START.match(text):
        return NOTHING
    if phrases.UNDECIDED.match(_sentence(text)):
        return UNDECIDED
    if letter := HEAD_LETTER.match(text):
        return _head_letter(letter["letter"], text[letter.end() :], choices, article=letter[0] == letter["letter"] and letter[0] in "AI")
    sentence = _sentence(text)
    whole = read_whole(sentence, choices)
    if whole.kind is not Kind.NOTHING:
        return whole if not _asks(text, sentence) else NOTHING
    return _head_text(text, choices)


def _head_letter(letter: str, rest: str, choices: Choices, *, article: bool) -> Reading:
    """``B``, and what the sentence says after it. ``A`` and ``I`` are words of English too."""
    follows = re.match(r"\s+(\w+)", rest)
    if article and follows and not phrases.CONNECTIVE.fullmatch(follows[1]) and follows[1].lower() not in ("or", "nor"):
        return _head_text(f"{letter}{rest}", choices)
    if letter not in choices.letters:
        return NOTHING if article else OUTSIDE
    text = rest.lstrip(" \t()[].:,;\"'=-")
    named = _text_at(text, choices)
    if named and named != letter:
        return SEVERAL
    if named:
        rest = _behind(text, choices.text(letter))
    elif rest.startswith(". ") and not ALSO.match(text):
        return Reading(Kind.CHOSEN, letter)  # what follows is a sentence of its own
    return _with_rest(Reading(Kind.CHOSEN, letter), rest, choices)


def _head_text(text: str, choices: Choices) -> Reading:
    """A choice's text in whole words, and then nothing that would make it another thing."""
    letter = _text_at(text, choices)
    if not letter:
        return NOTHING
    return _with_rest(Reading(Kind.CHOSEN, letter), _behind(text, choices.text(letter)), choices)


def _text_at(text: str, choices: Choices) -> str:
    """The letter of the choice whose text ``text`` begins with; empty where there is none, or more than one of the longest."""
    words = [word.casefold() for word in WORD.findall(ARTICLE.sub("", text.lstrip())[:LONGEST])]
    fits: list[tuple[int, str]] = []
    for letter, own in zip(choices.letters, choices.folded, strict=True):
        wanted = WORD.findall(own)
        if wanted and words[: len(wanted)] == wanted:
            after = words[len(wanted)] if len(words) > len(wanted) else ""
            if not after[:1].isalnum() or phrases.CONNECTIVE.fullmatch(after) or after == "or":
                fits.append((len(wanted), letter))
    longest = [letter for length, letter in fits if length == max(fits)[0]]
    return longest[0] if len(longest) == 1 else ""


def _behind(text: str, own: str) -> str:
    """What follows the words of ``own``, which ``text`` begins with."""
    body = ARTICLE.sub("", text.lstrip())
    matches = [*WORD.finditer(body[:LONGEST])]
    count = len(WORD.findall(fold(own)))
    return body[matches[count - 1].end() :] if count else body


def _with_rest(found: Reading, rest: str, choices: Choices) -> Reading:
    """A choice, unless the rest of its sentence asks, or puts another one beside it."""
    sentence = _sentence(rest)
    if _asks(rest, sentence):
        return NOTHING
    bracket = re.match(r"\s*[(\[](?:option |choice )?([A-Z])[)\]]", sentence)
    others = [bracket[1]] if bracket else []
    others += [one or two for one, two in phrases.ANOTHER.findall(phrases.EXCLUDED.sub("", sentence))]
    others += [other for joined in re.finditer(r"(?:^|\s)(?:or|and|/)\s+(.*)", sentence) if (other := _text_at(joined[1], choices))]
    return SEVERAL if any(other != found.letter and other in choices.letters for other in others) else found


def _sentence(text: str) -> str:
    """The first sentence. A point right behind a first letter, as in ``B. blue``, does not end it, nor one within a number."""
    for end in SENTENCE_END.finditer(text):
        if end.start() > 2 or end[0] != ".":
            return text[: end.start()]
    return text


def _asks(text: str, sentence: str) -> bool:
    return text[len(sentence) : len(sentence) + 1] == "?"


def _unboxed(text: str) -> str:
    """The content of a \\boxed{} that is all the text."""
    stripped = text.strip(" $.\n\t")
    found = BOX.match(stripped)
    if not found:
        return text
    inside, end = braced(stripped, found.end())
    return inside if end == len(stripped) else text


def braced(text: str, start: int) -> tuple[str, int]:
    """What stands between an opening brace, which ends at ``start``, and its closing one, and where that ends. Unclosed: nothing."""
    depth = 1
    for brace in re.finditer(r"\\?[{}]", text[start : start + LONGEST]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : start + brace.start()], start + brace.end()
    return "", start
