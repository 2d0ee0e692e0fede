"""Words with which a model declares its answer, takes it back, doubts or refuses, in the languages it is asked in.

All are matched without case in ``plain`` text without Markdown. A declaration's pattern ends where what is declared begins.
"""

from __future__ import annotations

import re

_BE = r"(?:is|was|would be|should be|must be|will be)"
_HEDGE = r"(?:might|may|could|can) (?:also )?(?:be|very well be)"
_WHAT = r"(?:answer|option|choice|solution)"

DECLARED = re.compile(
    rf"\b{_WHAT}(?: letter| choice| option| to (?:the|this) question| here)?"
    rf"(?:\s+(?:(?P<deny>(?:{_BE} |can)not|isn't|wasn't|can't be)|(?P<doubt>{_HEDGE})|{_BE})\b|\s*(?:[:=]|->|→)|\s+-(?=\s))[ \t]*[:=]?"
    r"|^[ \t]*(?:final |correct |my )?answer[ \t]*$|\bans[.:][ \t]*:?"
    r"|\b(?:so|hence|therefore|thus),?[ \t]+(?:it's |it is )?(?=\(?[A-Z]\)?\.?[ \t]*$)"
    r"|\b(?:I|we|I'll|I'd|would|will|must|should)[ ]+(?P<verb>choose|pick|select|go with)\b[ \t]*:?"
    r"|(?:答案|选项|正解|正确的)(?:应该|应当|应|就)?(?:(?P<deny_zh>不(?:是|为|選|选))|是|为|為|選|选|:|\])[ \t]*:?"
    r"|(?:故|因此|所以|应该?|應該?|我|可以|正确|本题|^)(?:选择|選擇|选(?!项)|選(?!項))[ \t]*:?"
    r"|(?:正解|答え|解答|回答)(?:は|:)[ \t]*"
    r"|(?:정답|답변?)(?:은|는|이)?[ \t]*:?[ \t]*(?=\S)"
    r"|\b(?:respuesta|réponse|antwort|resposta|risposta|ответ)(?:\s+(?:correcta|correcte|correta|corretta|final|finale|bonne|exacte|certa))?\s*(?:es|est|ist|é|è|lautet|:|-)(?!\w)[ \t]*:?"
    r"|(?:الإجابة|الجواب)(?: الصحيحة| الصحيح)?[ \t]*(?:هي|هو|:)[ \t]*:?|(?:सही )?उत्तर(?: है)?[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)

MATCHES = re.compile(
    r"\b(?:this|that|it|which)(?: is|'s| corresponds to| correspond to| matches(?: with)?) (?:the )?(?:option|choice|answer)(?: choice)?\s+\(?(?P<letter>[A-Z])(?![\w'-])",
    re.IGNORECASE,
)
"""``which corresponds to option B``."""

SUBJECT = re.compile(
    rf"(?:\b(?:option|choice|answer|statement)s?\s+)?(?<![\w.'-])\(?(?P<letter>[A-Z])\)?\s+(?:is|seems to be|must be)\s+(?P<deny>not\s+|in(?=correct))?"
    r"(?:(?:indeed|clearly|therefore|thus|hence)\s+)?(?:the\s+)?(?:most\s+|only\s+)?"
    rf"(?P<word>(?i:correct|right|accurate|best|appropriate|true|wrong|false|incorrect|{_WHAT}))(?:\s+{_WHAT})?(?![\w-])"
    r"|(?<![\w.])(?P<letter_zh>[A-Z])(?:项|選項|选项)?(?:是)?(?P<deny_zh>不)?(?P<word_zh>正确|正確|错误|錯誤)"
)
"""Sentences whose subject is a letter: ``B is correct``, ``option C is wrong``. The letter itself is a capital."""

WRONG = frozenset({"wrong", "false", "incorrect", "错误", "錯誤"})

CONDITION = re.compile(r"\b(?:if|whether|suppose|supposing|assuming|assume|unless)\b|如果|假如|若", re.IGNORECASE)
CONCLUSION = re.compile(r"\b(?:so|therefore|thus|hence|consequently)\b|所以|因此|故", re.IGNORECASE)
CLAUSE = re.compile(r"[,;:()]|\b(?:so|therefore|thus|hence|but|because|since|however)\b", re.IGNORECASE)
DENIAL = re.compile(r"\b(?:not|never|cannot|neither|nor)\b|n't\b|\b(?:wrong|incorrect|false|worst)\s*$|不|没", re.IGNORECASE)
DOUBT = re.compile(
    r"\b(?:might|may|maybe|perhaps|possibly|could|probably|thought|guess|says?|said|claims?|between|among|one of)\b|可能|也许"
    r"|\b(?:one|other|another|alternative|possible|plausible|potential|previous|initial|first|second|next|common|his|her|their|\w+'s)\s+(?:best\s+)?$",
    re.IGNORECASE,
)
"""In front of a declaration, within its clause, these make it none: denied, tentative or somebody else's."""

EXAMPLE = re.compile(r"\b(?:example|such as|e\.g|for instance)\b|例如", re.IGNORECASE)
"""The same, anywhere before it in its sentence."""

UNCERTAIN_START = re.compile(r"(?:either|probably|perhaps|maybe|possibly|likely|one of|between|among|might|may|could|both)\b|可能", re.IGNORECASE)
DENIED_START = re.compile(r"(?:definitely |certainly |clearly )?(?:not|neither|never)\b|不是", re.IGNORECASE)

UNDECIDED = re.compile(
    r"(?:none|neither)(?: of (?:the|these|those|them)\b.*)?$|(?:not|un)\s?(?:certain|sure|clear|known|determined|determinable|visible|given|available)\b"
    r"|(?:i|we) (?:don't|do not|can't|cannot|am not|are not)\b|(?:cannot|can't|could not) be (?:determined|said|told|known)|n/?a$|无法确定|不确定|不知道",
    re.IGNORECASE,
)
"""What is said in place of a choice."""

REFUSAL = re.compile(
    r"\b(?:i|we)(?: am|'m| are|'re)? (?:cannot|can't|can not|unable to|not able to|do not know|don't know|won't|will not|not sure)\b|\bcannot be determined\b"
    r"|\bi(?: am|'m) sorry\b|\b(?:there is|i see|i do not see|i don't see) no image\b|\b(?:insufficient|not enough) information\b|无法(?:确定|判断|回答|看)|抱歉",
    re.IGNORECASE,
)

SECOND_THOUGHT = re.compile(
    r"\b(?:wait|hold on)\b\s*(?:[,.!:-]|no\b|a (?:minute|second|moment)\b|$)"
    r"|\b(?:scratch that|on second thought|i made a mistake|that's (?:wrong|not right)|that is (?:wrong|not right)|let me (?:re-?\w+|double|check|look|think))\b|等等|重新",
    re.IGNORECASE,
)
"""After a declaration these open the question again."""

CONNECTIVE = re.compile(r"(?:because|since|as|for|which|that|based|due|given|where|so|by|from|in|on|at|with|and)\b", re.IGNORECASE)
"""Words that may follow a letter or a choice's text without changing what was chosen."""

ANOTHER = re.compile(
    r"(?:^|[ ,])(?:or|and|nor|also|alternatively|maybe|perhaps|possibly|/|&|或|和|与)[^.;]{0,40}?(?<![\w.'-])\(?([A-Z])(?![\w'-])|^[ ]*[,/&][ ]*\(?([A-Z])(?![\w'-])"
)
"""A second letter that stands beside a declared one with equal right."""

EXCLUDED = re.compile(
    r"(?:,? ?(?:and )?(?:not|rather than|instead of|unlike|over)) (?:option |choice |answer )?\(?[A-Z]\)?(?: ?(?:,|or|nor|and) ?\(?[A-Z]\)?(?![\w'-]))*(?![\w'-])",
    re.IGNORECASE,
)
