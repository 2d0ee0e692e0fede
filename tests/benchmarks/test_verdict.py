"""What counts as an answer, and what as silence: by bodies as vLLM writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.under_load.verdict import Reply, Verdict, Wanted, judge

ID = "0f3a"


def chunk(**more: Any) -> bytes:
    return b"data: " + json.dumps({"id": f"chatcmpl-{ID}", "object": "chat.completion.chunk", "choices": [], **more}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 20, "completion_tokens": 16, "total_tokens": 36}
PLAIN = json.dumps({"id": f"chatcmpl-{ID}", "choices": [{"message": {"content": "x"}}], "usage": USAGE}).encode()
STREAM = chunk() + chunk(usage=USAGE) + b"data: [DONE]\n\n"
ERROR = b'{"error": {"message": "EngineCore encountered an issue.", "code": 500}}'


@pytest.mark.parametrize(
    ("reply", "streamed", "verdict"),
    [
        (Reply(200, PLAIN, ID), False, Verdict.WHOLE),
        (Reply(200, STREAM, ID), True, Verdict.WHOLE),
        (Reply(problem="unreached"), False, Verdict.UNREACHED),
        (Reply(problem="broken"), False, Verdict.FAILED),
        (Reply(200, problem="broken"), True, Verdict.FAILED),
        (Reply(500, ERROR, ID), False, Verdict.FAILED),
        (Reply(200, chunk() + b"data: " + ERROR + b"\n\ndata: [DONE]\n\n", ID), True, Verdict.FAILED),
        (Reply(503, b'{"error": {"message": "The service is stopping."}}', ID), False, Verdict.REFUSED),
        (Reply(problem="timed out"), False, Verdict.SILENT),
        (Reply(200, problem="timed out"), True, Verdict.SILENT),
        (Reply(200, chunk(), ID), True, Verdict.SILENT),
        (Reply(200, b"", ID), True, Verdict.SILENT),
        (Reply(200, PLAIN.replace(ID.encode(), b"beef"), ID), False, Verdict.WRONG),
        (Reply(200, PLAIN, "beef"), False, Verdict.WRONG),
        (Reply(200, PLAIN.replace(b"16", b"15"), ID), False, Verdict.WRONG),
        (Reply(200, PLAIN.replace(b"20", b"21"), ID), False, Verdict.WRONG),
        (Reply(200, b"[]", ID), False, Verdict.WRONG),
        (Reply(200, b"<html>", ID), False, Verdict.WRONG),
        (Reply(422, b'{"error": {"message": "poison"}}', ID), False, Verdict.WRONG),
    ],
)
def test_each_end_of_a_request_has_its_verdict(reply: Reply, streamed: bool, verdict: Verdict) -> None:
    found, why = judge(reply, Wanted(ID, 16, 20, streamed))
    assert found is verdict, why
    assert bool(why) == (verdict not in (Verdict.WHOLE, Verdict.UNREACHED))
