"""Answers to questions without choices: what was declared, and whether it is the true one.

Texts agree when they are equal after ``normal.fold`` (case, articles, marks around them). Numbers agree by value: to half of the last
decimal place that the truth gives, exactly where it is whole, or within a relative tolerance that was asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qwen_fp8_ops.client.batch.qa import phrases
from qwen_fp8_ops.client.batch.qa.extraction import FIELD, TAG, final_text, last_believed
from qwen_fp8_ops.client.batch.qa.normal import fold, plain, unwrap, without_markdown
from qwen_fp8_ops.client.batch.qa.reading import BOX, LONGEST, SENTENCE_END, braced

WORDS = {
    word: number for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"))
}
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d{1,3})?")
FRACTION = re.compile(r"(?P<sign>-?)\s*\\frac\{(?P<over>\d+)\}\{(?P<under>\d+)\}|(?P<sign2>-?)(?P<over2>\d+)\s*/\s*(?P<under2>\d+)")
UNIT = re.compile(r"\s*(?:\\?°|\\?%|\\circ|\^\{?\\circ\}?|[a-zµ°]{1,12}(?:\^?\{?[23]\}?)?(?:/[a-z]{1,6})?)?\s*")
IN_TEXT = re.compile(r"(?<![\w.,/-])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|\.\d|,\d)|\b(?:" + "|".join(WORDS) + r")\b", re.IGNORECASE)
LONGEST_LINE = 200
FRACTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Number:
    """``step``: half of the last decimal place that was written, 0 for a whole number or a fraction."""

    value: float
    step: float
    exact: bool


@dataclass(frozen=True)
class OpenAnswer:
    """``text`` None: nothing was declared, ``why`` tells why; else the form it was found in."""

    text: str | None
    why: str


def extract_open(output: str) -> OpenAnswer:
    """The last declared answer: \\boxed{...}, a JSON field, a tag, ``the answer is ...``; else all of an answer of one short line."""
    said = final_text(output)
    if said is None:
        return OpenAnswer(None, "unfinished-thinking")
    text = without_markdown(plain(said)).strip()
    if not text:
        return OpenAnswer(None, "empty")
    found = [(box.start(), "boxed", braced(text, box.end())[0]) for box in last_believed(BOX, text)]
    for form, pattern in (("json", FIELD), ("tag", TAG)):
        found += [(field.start(), form, next((group for group in field.groups() if group), "")) for field in last_believed(pattern, text)]
    for phrase in last_believed(phrases.DECLARED, text):
        content = text[phrase.end() : phrase.end() + LONGEST].strip().partition("\n")[0]
        if not (phrase["deny"] or phrase["deny_zh"] or phrase["doubt"] or phrase["verb"] or BOX.search(content)):
            found.append((phrase.start(), "stated", _sentence(content)))
    found = [one for one in found if one[2].strip()]
    if found:
        _, form, content = max(found, key=lambda one: one[0])
        return OpenAnswer(unwrap(content), form)
    if phrases.REFUSAL.search(text):
        return OpenAnswer(None, "refused")
    return OpenAnswer(text, "whole") if "\n" not in text and len(text) <= LONGEST_LINE else OpenAnswer(None, "no-decision")


def _sentence(text: str) -> str:
    end = SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def agrees(answer: OpenAnswer, truth: str, tolerance: float | None = None) -> bool:
    """
    Args:
        truth: as the question file has it, with or without \\boxed{}.
        tolerance: relative, for all numbers; None is the rule above.
    """
    if answer.text is None:
        return False
    true_text = true_answer(truth)
    if fold(answer.text) == fold(true_text):
        return True
    true, given = number(true_text), number(answer.text)
    if true is None:
        return False
    if given is None and answer.why in ("whole", "stated"):  # ``There are 3 circles.``
        given = _only_number(answer.text)
    return given is not None and _near(given, true, tolerance)


def true_answer(truth: str) -> str:
    """What stands in the last \\boxed{} of the file's answer, else all of it."""
    text = plain(truth).strip()
    boxes = [*BOX.finditer(text)]
    return unwrap(braced(text, boxes[-1].end())[0] if boxes else text)


def number(text: str) -> Number | None:
    """A text that is one number: 1,234.5, 3/4, \\frac{3}{4}, 25%, 5 cm, three; None for any other."""
    body = fold(text).replace("\\%", "%").lstrip("$€£ ")
    body = re.sub(r"^[a-z]\s*=\s*", "", body)
    if body in WORDS:
        return Number(float(WORDS[body]), 0.0, exact=True)
    if parts := FRACTION.fullmatch(body):
        under = float(parts["under"] or parts["under2"])
        over = float(parts["over"] or parts["over2"])
        return Number((-1 if parts["sign"] or parts["sign2"] else 1) * over / under, 0.0, exact=False) if under else None
    written = NUMBER.match(body)
    if not written or not any(letter.isdigit() for letter in written[0]) or not UNIT.fullmatch(body, written.end()):
        return None
    digits = written[0].replace(",", "")
    decimals = len(digits.partition("e")[0].partition(".")[2])
    value = float(digits)
    return Number(value, 0.5 * 10.0**-decimals if decimals and "e" not in digits else 0.0, exact=not decimals) if abs(value) < 1e300 else None


def _only_number(text: str) -> Number | None:
    if any(words.search(text) for words in (phrases.DENIAL, phrases.DOUBT, phrases.CONDITION)) or text.endswith("?"):
        return None
    found = IN_TEXT.findall(text)
    return number(found[0]) if len(found) == 1 else None


def _near(given: Number, true: Number, tolerance: float | None) -> bool:
    if tolerance is not None:
        return abs(given.value - true.value) <= tolerance * abs(true.value)
    if true.exact:
        return given.value == true.value
    allowed = true.step or FRACTION_TOLERANCE * abs(true.value)
    return abs(given.value - true.value) <= allowed * (1 + 1e-9)
