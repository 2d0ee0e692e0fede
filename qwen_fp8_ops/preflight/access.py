"""Who may use the API: only this machine, or whoever has a key."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.keys import read_keys
from qwen_fp8_ops.outside.net import is_loopback
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject


@check("Network", {"access": "HOST beyond loopback needs keys, in a file that only its owner reads"})
def check_access(subject: Subject) -> Iterator[Finding]:
    settings, keys_file = subject.settings, subject.plan.api_keys_file
    if keys_file is None:
        if is_loopback(settings.host):
            yield Finding("access", "pass", f"listens on {settings.host} only, no key asked for")
        else:
            yield Finding("access", "fail", f"HOST={settings.host} would open the API to the network without a key", _make_keys("api_keys"))
        return
    try:
        names = read_keys(keys_file)
    except OpsError as error:
        yield Finding("access", "fail", error.message, error.fix or _make_keys(str(keys_file)))
        return
    if names:
        yield Finding("access", "pass", f"{len(names)} keys in {keys_file}")
    else:
        yield Finding("access", "fail", f"No key in {keys_file}", _make_keys(str(keys_file)))


def _make_keys(path: str) -> str:
    return f'(umask 077; echo "me:$(openssl rand -hex 24)" >> {shlex.quote(path)})\nthen set API_KEYS_FILE={path} in config.env, or HOST=127.0.0.1.'
