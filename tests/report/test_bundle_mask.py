"""What is taken out of a text, in every form that logs have; what must stay; and that no text makes it slow."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.report.bundle.mask import PATTERNS, Mask

ENGINE_LOGS = Path(__file__).parent.parent / "fixtures" / "engine_logs"
CANARY = "canary-0123456789-XYZ"


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {CANARY}",
        f"authorization:{CANARY}",
        f"> Authorization: Basic {CANARY}==",
        f"Proxy-Authorization: Basic {CANARY}",
        f"curl -H 'Authorization: Bearer {CANARY}' http://127.0.0.1:8010/v1/models",
        f'curl -H "X-API-Key: {CANARY}" http://127.0.0.1:8010',
        f"headers: {{'authorization': 'Bearer {CANARY}', 'accept': '*/*'}}",
        f'{{"headers": {{"Authorization": "Bearer {CANARY}"}}, "status": 401}}',
        json.dumps({"line": json.dumps({"Authorization": f"Bearer {CANARY}"})}),
        f"[(b'host', b'x'), (b'authorization', b'Bearer {CANARY}'), (b'accept', b'*/*')]",
        f"[(b'x-api-key', b'{CANARY}')]",
        f"Headers([('authorization', '{CANARY}')])",
        f"Cookie: session={CANARY}; theme=dark",
        f"Set-Cookie: id={CANARY}",
        f"sent Bearer {CANARY} and was refused",
        f"BEARER  {CANARY}",
        f'Authorization: Bearer half"{CANARY}',
        f'"Authorization": "Bearer half\\"{CANARY}"',
        f"HF_TOKEN={CANARY}",
        f"export OPENAI_API_KEY='{CANARY}'",
        f'"api_key": "{CANARY}"',
        f"api_key => {CANARY}",
        f"apikey={CANARY}&x=1",
        f"password: {CANARY}",
        f"db_password={CANARY}",
        f"client_secret = {CANARY}",
        f"aws_secret_access_key={CANARY}",
        f"--api-key {CANARY}",
        f"--api-key={CANARY}",
        f"['serve', '--hf-token', '{CANARY}', '--port', '1']",
        f"http://user:{CANARY}@proxy.example:3128/",
        f"git+https://{CANARY}@github.example/x.git",
        f"https://bucket.example/a.png?X-Amz-Signature={CANARY}&X-Amz-Date=1",
        f"https://blob.example/a.png?sv=1&sig={CANARY}",
        "hf_" + CANARY.replace("-", "") * 2,
        f"sk-{CANARY}",
        "ghp_" + CANARY.replace("-", ""),
        f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.{CANARY}",
        f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{CANARY}\n{CANARY}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\nthe end is missing",
        f"config.env line 3: not of the form KEY=value: {CANARY} {CANARY}",
        f"config.env line 3: {CANARY} has no =value",
        f"config.env line 3: {CANARY} stands twice; it is first given in line 2",
        f"config.env line 3: unknown key {CANARY}; did you mean PORT?",
        f"data:image/png;base64,{CANARY.replace('-', '') * 8}",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(line: str) -> None:
    mask = Mask(())
    told = mask.text(f"before\n{line}\nafter")
    assert "0123456789" not in told
    assert told.startswith("before\n") and "<masked: " in told
    assert sum(mask.counts.values()) >= 1
    assert told.endswith("\nafter") or "BEGIN PRIVATE KEY" in line


@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-21 10:00:00 [kv_cache_utils.py:1] GPU KV cache size: 809,504 tokens, Maximum concurrency for 32,768 tokens per request: 24.70x",
        "Avg prompt throughput: 12.3 tokens/s, Avg generation throughput: 4.5 tokens/s",
        '{"usage": {"prompt_tokens": 31, "total_tokens": 48, "completion_tokens": 17}}',
        "non-default args: {'hf_overrides': {}, 'hf_token': None, 'tokenizer_mode': 'auto', 'max_num_batched_tokens': 8192}",
        "MAX_TOKENS=8192",
        "config.env line 3: PORT stands twice; it is first given in line 2",
        "config.env line 3: unknown key PROT; did you mean PORT?",
        "API_KEYS_FILE=/etc/qwen/keys",
        "tiktoken==0.12.0",
        "if token == 'x': ...",
        "KeyError: 'layers.0.weight'",
        "image_token_id: 151655, eos_token: 151645",
        "http://127.0.0.1:8010/v1/models?x=1",
        "git@github.com:owner/name.git",
        "--served-model-name=qwen3-vl-fp8 --max-num-seqs=4",
        "disk-quota-exceeded-for-user task-0123456789abcdef0123",
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=4711, name=python",
    ],
)
def test_what_only_resembles_one_stays(line: str) -> None:
    assert Mask(()).text(line) == line


SECRET = 'ab"c\\d/e+f é:0123456789'


@pytest.mark.parametrize(
    "spelled",
    [SECRET, json.dumps(SECRET), json.dumps(SECRET, ensure_ascii=False), repr(SECRET), quote(SECRET, safe=""), quote(SECRET), base64.b64encode(SECRET.encode()).decode()],
)  # fmt: skip
def test_a_known_secret_is_taken_out_however_it_is_spelled(spelled: str) -> None:
    told = Mask([SECRET]).text(f"x {spelled} y")
    assert "0123456789" not in told and told.startswith("x ") and told.endswith(" y")


def test_a_secret_that_begins_with_another_leaves_nothing() -> None:
    assert Mask(["abcdefgh", "abcdefghijkl"]).text("abcdefghijkl") == "<masked: known secret>"


def test_a_word_too_short_to_be_a_secret_stays() -> None:
    assert Mask(["true", "", "0"]).text("it is true 0") == "it is true 0"


@given(st.text(), st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.~!%&", min_size=16), st.text())
def test_no_surroundings_bring_a_known_secret_through(before: str, secret: str, after: str) -> None:
    assert secret not in Mask([secret]).text(f"{before}{secret}{after}").replace("<masked: known secret>", "")


@pytest.mark.parametrize(
    "text",
    ["a" * 400_000, "token" * 80_000, "token " * 60_000, "authorization" * 30_000, "://" * 130_000, "://a:" * 80_000, "-----BEGIN PRIVATE KEY-----" * 12_000,
     "--" + "a-" * 200_000, '"\\' * 200_000, 'password="' * 40_000, "eyJ" * 130_000, "data:a;base64," * 25_000, "bearer " * 60_000, "has no =value" * 30_000],
)  # fmt: skip
def test_a_text_made_to_be_slow_is_not(text: str) -> None:
    """Twice the text may take about twice the time; what grows with the square takes four times as long, and minutes at this size."""

    def seconds(size: int) -> float:
        began = time.process_time()
        for pattern in PATTERNS.values():
            pattern.sub("", text[:size])
        return time.process_time() - began

    text = text[:60_000]
    half, whole = seconds(len(text) // 2), seconds(len(text))
    assert whole < 3.2 * half + 0.5


@pytest.mark.parametrize("log", sorted(ENGINE_LOGS.glob("*.log")), ids=lambda path: path.stem)
def test_nothing_of_a_recorded_engine_log_is_taken_for_a_secret(log: Path) -> None:
    text = log.read_text(errors="replace")
    assert Mask(()).text(text) == text
