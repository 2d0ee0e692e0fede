"""Our default for ``max_tokens``, put into requests that may have none, without parsing them.

Why not vLLM's own ``--override-generation-config '{"max_new_tokens": N}'``: it is a ceiling there
(``override_max_tokens`` in vllm/entrypoints/serve/utils/api_utils.py), and we promise that a request's own value wins.

The member goes first into the request's object. Whoever reads JSON with Python's ``json`` (FastAPI does) keeps the *last* of
several members of one name, so a ``max_tokens`` of the request's own still counts, however it is written or escaped, and vLLM
itself prefers ``max_completion_tokens`` to both. So nobody has to look whether the request has one: a message or a tool that
merely mentions "max_tokens" is not taken for one, and only the first bytes of a body are ever held back, not the whole of it.
"""

from __future__ import annotations

import re

OPENING = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{(?=[ \t\r\n]*([\"}]))")
"""The start of a JSON object in UTF-8, up to its brace; the group is what follows: a first member or the end."""

LONGEST_OPENING_BYTES = 65_536
"""A body that begins with more white space than this is passed on as it is."""


def undecided(head: bytes) -> bool:
    """Could more bytes still make this the opening of an object?"""
    return len(head) < LONGEST_OPENING_BYTES and not head.strip(b"\xef\xbb\xbf \t\r\n{")


def splice(head: bytes, member: bytes) -> bytes:
    """``head``, the first bytes of a body, with ``member`` (``"name":value``) as the first one of its object.

    Anything that is not the opening of a JSON object in UTF-8 comes back unchanged: the engine explains it better.
    """
    found = OPENING.match(head)
    if not found:
        return head
    separator = b"," if found[1] == b'"' else b""
    return b"".join((found[0], member, separator, head[found.end() :]))
