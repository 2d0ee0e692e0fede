"""Which choice a model's answer names. It never guesses: what is not said plainly is None, and ``why`` tells what was missing.

The convention, also in docs/qa.md:

1. Thinking is removed. Thinking without an end is no answer.
2. An explicit declaration decides, and of several the last: ``\\boxed{B}``, ``Answer: B``, ``the answer is B``, ``{"answer": "B"}``,
   ``<answer>B</answer>``, and their like in other languages and in full width. ``B is correct`` and ``that is option B`` are weaker: they
   count where nothing else is declared and only one letter is called so, and after a declaration they may only agree with it.
3. What is declared is a letter, a choice's whole text, or both in agreement. Case, articles and marks around it do not matter.
4. A declaration that is denied, tentative, conditional, asked or given as an example counts as none; one of mathematics or of anything
   that is no choice is passed over.
5. Two letters, a letter the question does not have, "none of these", or second thoughts after the last declaration: None.
6. Without a declaration the answer must be plain: all of it, its first line or its last line is a choice, or it opens with a marked letter
   and marks no other. No refusal may stand beside it.

Pure; takes any text and never raises; works in time proportional to the text's length.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from qwen_fp8_ops.client.batch.qa import phrases
from qwen_fp8_ops.client.batch.qa.choices import Choices
from qwen_fp8_ops.client.batch.qa.normal import plain, without_markdown
from qwen_fp8_ops.client.batch.qa.reading import BOX, LONGEST, NOTHING, SENTENCE_END, SEVERAL, Kind, Reading, braced, read_head, read_whole


@dataclass(frozen=True)
class Extraction:
    """``letter`` is a letter of the choices or None. ``why`` is the form it was found in (boxed, stated, json, tag, whole, line, marked),
    or why there is none (empty, unfinished-thinking, several, outside, undecided, retracted, refused, no-decision)."""

    letter: str | None
    why: str


@dataclass(frozen=True)
class Declaration:
    begin: int
    end: int
    form: str
    reading: Reading


def extract(output: str, choices: Choices) -> Extraction:
    """The choice that ``output``, a model's whole answer, decides for."""
    said = final_text(output)
    if said is None:
        return Extraction(None, "unfinished-thinking")
    text = without_markdown(plain(said)).strip()
    if not text:
        return Extraction(None, "empty")
    declared = sorted(_declarations(text, choices), key=lambda one: (one.begin, one.end))
    decisive = [one for one in declared if one.reading.kind not in (Kind.NOTHING, Kind.DENIED)]
    denied = {letter: one.begin for one in declared if one.reading.kind is Kind.DENIED for letter in one.reading.letter}
    found = _decided(decisive, text) if decisive else _undeclared(text, choices)
    if found.reading.kind is not Kind.CHOSEN:
        return Extraction(None, found.reading.kind.value if found.reading.kind is not Kind.NOTHING else found.form)
    if denied.get(found.reading.letter, -1) > found.begin or phrases.SECOND_THOUGHT.search(text, found.end):
        return Extraction(None, "retracted")
    return Extraction(found.reading.letter, found.form)


THINKING = re.compile(r"<(?P<end>/)?think(?:ing)?>", re.IGNORECASE)
"""A server without a reasoning parser leaves it in the answer. The opening tag may be missing: it stands in the chat template."""


def final_text(output: str) -> str | None:
    """What a model said after its thinking; None when the thinking has no end, for then nothing was said yet."""
    end = 0
    for tag in THINKING.finditer(output):
        end = tag.end() if tag["end"] else -1
    return None if end < 0 else output[end:]


BESIDE = re.compile(r"[\s$,/&]*(?:(?:or|and|或|和)(?:\s+(?:also|maybe|perhaps|possibly|even))?)?[\s$,/&]*")
"""What may stand between two declarations of equal right."""


def _decided(declared: list[Declaration], text: str) -> Declaration:
    """The last declaration. ``B is correct`` is weaker than the others: several things may be correct."""
    explicit = [one for one in declared if one.form != "said-right"]
    said_right = [one for one in declared if one.form == "said-right"]
    last = _last(explicit, text) if explicit else said_right[-1]
    rivals = [one for one in said_right if not explicit or one.begin > last.begin]
    if any(one.reading != last.reading for one in rivals):
        return replace(last, reading=SEVERAL)
    return last if explicit else replace(last, form="stated")


def _last(declared: list[Declaration], text: str) -> Declaration:
    """The last one; but a box right beside it with another letter is as good as it."""
    last = declared[-1]
    for one in reversed(declared[:-1]):
        if one.end > last.begin:  # ``the answer is \\boxed{B}`` is found in two ways
            last = last if last.reading.kind is Kind.CHOSEN else one
        elif one.form == last.form == "boxed" and one.reading != last.reading and BESIDE.fullmatch(text, one.end, last.begin):
            return replace(last, reading=SEVERAL)
        else:
            break
    return last


MOST_DECLARATIONS = 50


def _latest(pattern: re.Pattern[str], text: str) -> Iterable[re.Match[str]]:
    """The last declarations are those that count; a model that repeats itself without end makes thousands."""
    return deque(pattern.finditer(text), MOST_DECLARATIONS)


def last_believed(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The last declarations that no word before them takes back."""
    some = Reading(Kind.CHOSEN)
    return [found for found in _latest(pattern, text) if _believed(some, text, found.start()) == some]


def _declarations(text: str, choices: Choices) -> Iterator[Declaration]:
    yield from _boxed(text, choices)
    yield from _stated(text, choices)
    yield from _subjects(text, choices)
    yield from _matches(text, choices)
    yield from _fields(text, choices)


def _boxed(text: str, choices: Choices) -> Iterator[Declaration]:
    for box in _latest(BOX, text):
        content, end = braced(text, box.end())
        yield Declaration(box.start(), end, "boxed", _believed(read_whole(content, choices), text, box.start()))


def _stated(text: str, choices: Choices) -> Iterator[Declaration]:
    for phrase in _latest(phrases.DECLARED, text):
        begin, content = _line_behind(text, phrase.end())
        reading = _believed(read_head(content, choices), text, phrase.start())
        if phrase["deny"] or phrase["deny_zh"]:
            reading = _denied(reading)
        elif phrase["doubt"] or (phrase["verb"] and reading.kind not in (Kind.CHOSEN, Kind.SEVERAL)):
            reading = NOTHING
        yield Declaration(phrase.start(), begin + 1, "stated", reading)


def _subjects(text: str, choices: Choices) -> Iterator[Declaration]:
    for sentence in _latest(phrases.SUBJECT, text):
        letter = sentence["letter"] or sentence["letter_zh"]
        if letter not in choices.letters:
            continue
        reading = _believed(Reading(Kind.CHOSEN, letter), text, sentence.start())
        wrong = (sentence["word"] or sentence["word_zh"]).casefold() in phrases.WRONG
        if wrong or sentence["deny"] or sentence["deny_zh"]:
            reading = NOTHING if wrong and sentence["deny"] else _denied(reading)
        before = text[max(0, sentence.start() - 30) : sentence.start()]
        after = text[sentence.end() : sentence.end() + 30]
        if re.search(r"(?<![\w'-])[A-Z]\)?,? *(?:or|nor|and|/|,)\s*(?:option |choice )?$", before):
            reading = SEVERAL if reading.kind is Kind.CHOSEN else reading
        elif re.search(r"\b(?:is|are|was|does|do|why|how)\s*$", before, re.IGNORECASE) or re.match(r"[^.!\n]{0,20}\?|\s+(?:if|only|unless|when)\b", after):
            reading = NOTHING
        yield Declaration(sentence.start(), sentence.end(), "said-right", reading)


def _matches(text: str, choices: Choices) -> Iterator[Declaration]:
    for found in _latest(phrases.MATCHES, text):
        letter = found["letter"]
        asks = re.match(r"[^.!\n]{0,60}\?", text[found.end() :])
        if letter in choices.letters and not asks:
            yield Declaration(found.start(), found.end(), "said-right", _believed(Reading(Kind.CHOSEN, letter), text, found.start()))


FIELD = re.compile(
    r"""["'](?:final_?answer|correct_?answer|answer|choice|option)["']\s*:\s*(?:"((?:[^"\\\n]|\\.){0,500})"|'((?:[^'\\\n]|\\.){0,500})'|(\[[^\]\n]{0,500}\])|([A-Za-z])\b)""",
    re.IGNORECASE,
)
"""A field of JSON or of a Python dictionary; a cut-off object has it as well as a whole one."""

TAG = re.compile(r"<answer>([^<]{0,2000})(?:</answer>|$)", re.IGNORECASE)


def _fields(text: str, choices: Choices) -> Iterator[Declaration]:
    for form, pattern in (("json", FIELD), ("tag", TAG)):
        for field in _latest(pattern, text):
            content = next((group for group in field.groups() if group), "")
            content = re.sub("[\"']", "", content) if content.startswith("[") else content
            yield Declaration(field.start(), field.end(), form, _believed(read_whole(content, choices), text, field.start()))


def _line_behind(text: str, start: int) -> tuple[int, str]:
    """The rest of the line, or, when nothing is left of it, the next line with something on it; and where it begins."""
    rest = re.compile(r"\s*").match(text, start)
    begin = rest.end() if rest else start
    end = text.find("\n", begin)
    return begin, text[begin : len(text) if end < 0 else end][:LONGEST]


def _believed(reading: Reading, text: str, begin: int) -> Reading:
    """What a declaration is worth after what its sentence said before it."""
    if reading.kind is Kind.NOTHING:
        return reading
    before = text[max(0, begin - 300) : begin]
    sentence = before[max((end.end() for end in SENTENCE_END.finditer(before)), default=0) :]
    conditions = [*phrases.CONDITION.finditer(sentence)]
    if phrases.EXAMPLE.search(sentence) or (conditions and not phrases.CONCLUSION.search(sentence, conditions[-1].end())):
        return NOTHING
    clause = sentence[max((mark.end() for mark in phrases.CLAUSE.finditer(sentence)), default=0) :]
    if phrases.DENIAL.search(clause):
        return _denied(reading)
    return NOTHING if phrases.DOUBT.search(clause) else reading


def _denied(reading: Reading) -> Reading:
    return Reading(Kind.DENIED, reading.letter) if reading.kind in (Kind.CHOSEN, Kind.DENIED) else NOTHING


PRONOUN = re.compile(r"(?:it is|it's|this is|that is|that's|they are|they're|there is|there are)\s+(.*)", re.IGNORECASE)
OPENING = re.compile(r"[(\[]?([A-HJ-Z])[)\].:]+\s+(\S.*)")
ANY_MARK = re.compile(r"(?<![\w.'-])(?:[(\[]([A-Z])[)\]]|([A-Z])[).:](?=\s|$)|(?i:option|choice|answer) ([A-Z])(?![\w'-]))")


def _undeclared(text: str, choices: Choices) -> Declaration:
    """An answer that only is what it is: a choice, on its first line or its last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if phrases.REFUSAL.search(text):
        return Declaration(0, 0, "refused", NOTHING)
    readings = [read_whole(line, choices) if not line.endswith("?") else NOTHING for line in (lines if len(lines) < 60 else [lines[0], lines[-1]])]
    spoken = {reading for reading in readings if reading.kind is not Kind.NOTHING}
    if len(spoken) > 1:
        return Declaration(0, 0, "several", SEVERAL)
    if spoken:
        reading = spoken.pop()
        if reading not in (readings[0], readings[-1]):
            return Declaration(0, 0, "no-decision", NOTHING)
        return Declaration(0, len(text), "whole" if len(lines) == 1 else "line", reading)
    if len(lines) == 1 and (said := PRONOUN.fullmatch(lines[0])):
        return Declaration(0, len(text), "whole", read_whole(said[1], choices) if not said[1].endswith("?") else NOTHING)
    opening = OPENING.match(lines[0])
    if not opening:
        return Declaration(0, 0, "no-decision", NOTHING)
    marked = {one or two or three for one, two, three in ANY_MARK.findall(text)}
    reading = SEVERAL if marked - {opening[1]} else read_head(lines[0], choices)
    return Declaration(0, len(lines[0]), "marked" if reading.kind is Kind.CHOSEN else "no-decision", reading)
