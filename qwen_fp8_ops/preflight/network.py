"""Ports: free, or held by somebody with a name."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.outside.media_health import health, root_id
from qwen_fp8_ops.outside.net import port_owner
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.program import Program
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Standing, Subject

HEALTH_SECONDS = 2.0


@check(
    "Network",
    {
        "engine0-port": "HOST:PORT can be listened on; engine1-port and so on where there are more engines",
        "media-port": "MEDIA_HOST:MEDIA_PORT can be listened on, or a media server of ours serves MEDIA_ROOT there already",
    },
)
def check_ports(subject: Subject) -> Iterator[Finding]:
    for engine in subject.plan.engines:
        yield _check_port(subject, engine, f"{engine.name}-port", "PORT")
    if media_is_served(subject.plan):
        yield Finding("media-port", "pass", "a media server of ours serves this root already; it is used")
    else:
        yield _check_port(subject, subject.plan.media, "media-port", "MEDIA_PORT")


def media_is_served(plan: LaunchPlan) -> bool:
    """Does a media server of ours, started by somebody else, serve the same root on the same port?"""
    found = health(plan.media.host, plan.media.port, HEALTH_SECONDS)
    return found is not None and found.root_id == root_id(plan.media_root)


def _check_port(subject: Subject, program: Program, code: str, key: str) -> Finding:
    try:
        owner = port_owner(program.host, program.port)
    except OSError as error:
        fix = f"Set {key} to 1024 or more." if isinstance(error, PermissionError) else f"Set {key.replace('PORT', 'HOST')} to an address of this machine."
        return Finding(code, "fail", f"Cannot listen on {program.host}:{program.port}: {error.strerror or error}", fix)
    if owner is None:
        return Finding(code, "pass", f"port {program.port} is free")
    if owner.pid in subject.own_pids and subject.standing is Standing.RUNNING:
        return Finding(code, "pass", f"port {program.port} is this service's own, which is running (pid {owner.pid})")
    end = f"kill {owner.pid}" if owner.pid else f"lsof -i :{program.port}"
    return Finding(
        code,
        "fail",
        f"Port {program.port} is already in use ({owner})",
        f"./stop_service.sh, if it is ours; else end it ({end})\nOr choose another: --set {key}=...",
    )
