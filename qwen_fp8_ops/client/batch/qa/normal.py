"""One spelling for what means the same, so that texts can be compared: full-width letters, typographic quotes, Markdown, LaTeX."""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))
ALIKE = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "−": "-", "–": "-", "—": "-", "、": ",", "。": ".", "【": "[", "】": "]"})
MARKDOWN = re.compile(r"[*`#]+|(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])")
ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|bold|bf|rm)\s*\{([^{}]*)\}")
WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'), ("'", "'"), ("<", ">"))
EDGE = " \t\r\n.,;:!"
MOST_LAYERS = 20
LATEX = ((re.compile(r"\\[dt]frac(?![a-z])"), r"\\frac"), (re.compile(r"\\(?:left|right|displaystyle)(?![a-z])|\\[,;:!]"), ""), (re.compile(r"\\ "), " "))
"""Spellings of mathematics that look the same."""


def plain(text: str) -> str:
    """Compatibility forms made common (Ａ to A, （ to (, Ⓑ to B), quotes and dashes straight, invisible marks gone."""
    return unicodedata.normalize("NFKC", text).translate(ALIKE).translate(INVISIBLE)


def without_markdown(text: str) -> str:
    """``plain`` text without the signs of emphasis, headings and code."""
    return MARKDOWN.sub("", text)


def unwrap(text: str) -> str:
    """What a short ``plain`` text says, without what stands around it: quotes, brackets, dollar signs, \\text{}, a full stop."""
    inner = text
    for _ in range(MOST_LAYERS):
        before = inner
        inner = TEXT_COMMAND.sub(r"\1", inner.strip(EDGE))
        for opening, closing in WRAPPERS:
            middle = inner[len(opening) : len(inner) - len(closing)]
            if len(inner) > len(opening) + len(closing) - 1 and inner.startswith(opening) and inner.endswith(closing):
                inner = middle if opening not in middle and closing not in middle else inner
        if inner == before:
            break
    return inner


def fold(text: str) -> str:
    """A text in the form that equal answers share: no case, no article in front, no marks around it, single spaces."""
    bare = without_markdown(plain(text))
    for pattern, common in LATEX:
        bare = pattern.sub(common, bare)
    words = " ".join(unwrap(bare).casefold().split())
    return ARTICLE.sub("", words)
