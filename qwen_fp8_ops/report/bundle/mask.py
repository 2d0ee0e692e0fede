"""Takes secrets out of a text. Two nets, for either alone has holes:

- secrets that this machine knows (``secrets.known_secrets``) are taken out wherever they stand, in every spelling that a log gives them;
- what only looks like a secret is taken out by its surroundings: an Authorization header, a ``password=``, a token's well-known beginning.

What is taken out leaves ``<masked: WHAT>``. It is better to mask too much than too little: an unquoted header is masked to the end of
its line. Every pattern takes time in proportion to the text, also on one that was made to be slow.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

SHORTEST = 8
"""A shorter secret is no secret, and to take it out everywhere would spoil the text (``true``, ``0``, ``none``)."""

KEY_LIKE = "[A-Z][A-Z0-9_]{0,63}"
"""How the name of a setting looks; any other name may itself be a secret that was put on the wrong side of the =."""

QUOTED = r"""b?(?P<q>\\?["'])(?:\\.|(?!(?P=q)).)*"""
PLAIN_VALUE = r"""(?!<masked|(?:None|null|true|false|\d{1,12})\b)[^\s,;&"'`)\]}]+"""

PATTERNS: dict[str, re.Pattern[str]] = {
    "private key": re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END[^-]{0,60}-----|\Z)"),
    "media": re.compile(r"(?P<head>data:[\w/+.-]{1,60};base64,)[A-Za-z0-9+/=_-]{64,}"),
    "header": re.compile(
        r"""(?i)(?P<head>\b(?:(?:proxy-)?authorization|x-api-key|api-key|x-auth-token|(?:set-)?cookie)\\?["']?\s{0,3}[:=,]\s{0,3})(?:"""
        + QUOTED
        + r"""|(?!["'])[^\r\n]+)"""
    ),
    "bearer": re.compile(r"""(?i)(?P<head>\bbearer\s{1,3})(?!<masked)[^\s"']+"""),
    "flag": re.compile(r"""(?i)(?P<head>--[\w-]{0,40}(?:key|token|secret|password)["']?[=,\s]{1,4}["']?)(?!<masked|-)[^\s"',\]]+"""),
    "assignment": re.compile(
        r"""(?i)(?P<head>(?:api_?-?key|access_?-?key(?:_?-?id)?|secret_?-?key|private_?-?key|token|secret|passwd|password|passphrase|credentials?)"""
        r"""\\?["']?\s{0,3}(?:=>|:|=(?!=))\s{0,3})(?:""" + QUOTED + "|" + PLAIN_VALUE + ")"
    ),
    "token": re.compile(
        r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|nvapi-[\w-]{16,}|AKIA[A-Z0-9]{12,}"
        r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)"
    ),
    "password of a URL": re.compile(r"""(?P<head>://(?:[^\s/:@"']{0,256}:)?)(?!<masked)(?:(?<=:)[^\s/@"']{1,256}|[^\s/:@"']{16,256})(?=@)"""),
    "signature of a URL": re.compile(
        r"""(?i)(?P<head>[?&](?:x-amz-[\w-]{1,40}|x-goog-[\w-]{1,40}|sig|signature|key|token|policy|awsaccesskeyid)=)(?!<masked)[^&\s"'<>]+"""
    ),
    # What the loader says of a line that is no setting: it may be a key on its own.
    "malformed setting": re.compile(
        r"(?P<head>not of the form KEY=value: |line \d{1,9}: (?=[^\r\n]{1,256} has no =value)"
        rf"|line \d{{1,9}}: (?!{KEY_LIKE} )(?=[^\r\n]{{1,256}} stands twice)|unknown key (?!{KEY_LIKE};))[^\r\n]+"
    ),
}


class Mask:
    """``counts`` tells how often each kind was found; a known secret counts as ``known secret``."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {spelling for secret in secrets if len(secret) >= SHORTEST for spelling in _spellings(secret)}
        self._secrets = sorted(spellings, key=len, reverse=True)  # one may begin with another
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                self.counts["known secret"] += text.count(secret)
                text = text.replace(secret, masked("known secret"))
        for what, pattern in PATTERNS.items():
            kept = r"\g<head>" if "head" in pattern.groupindex else ""
            text, found = pattern.subn(f"{kept}{masked(what)}", text)
            self.counts[what] += found
        return text


def masked(what: str) -> str:
    return f"<masked: {what}>"


def _spellings(secret: str) -> set[str]:
    """As it is, inside a JSON string or a Python one, in a URL, in a header of basic authentication."""
    data = secret.encode(errors="replace")
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        quote(data, safe=""),
        quote(data),
        base64.b64encode(data).decode(),
    }
