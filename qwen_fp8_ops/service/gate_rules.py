"""What the supervisor tells the gate: the plan's rules, and what is so just now."""

from __future__ import annotations

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.gate.config import GateConfig
from qwen_fp8_ops.gate.fetch_rules import MediaRules, checked
from qwen_fp8_ops.outside.net import names_of
from qwen_fp8_ops.plan.launch import LaunchPlan

RETRY_AFTER_SECONDS = 30


def gate_rules(plan: LaunchPlan, paths: RunPaths, *, draining: bool, ends_at: str | None) -> GateConfig:
    settings = plan.settings
    return GateConfig(
        draining=draining,
        retry_after_seconds=RETRY_AFTER_SECONDS,
        ends_at=ends_at,
        keys_files=tuple(str(path) for path in (paths.keys, plan.api_keys_file) if path),
        keys_required=plan.api_keys_file is not None,
        rate_limit_per_minute=settings.rate_limit,
        max_body_bytes=settings.max_body_mb * 1_000_000,
        default_max_tokens=min(settings.max_tokens, settings.max_model_len),
        audit=str(paths.audit),
        log_format=settings.log_format,
        poison=str(paths.poison),
        in_flight=str(paths.in_flight),
        state=str(paths.state),
        media=media_rules(plan),
    )


def media_rules(plan: LaunchPlan) -> MediaRules:
    """
    Raises:
        ConfigError: ALLOWED_MEDIA_DOMAINS holds a network that is none.
    """
    server = plan.media
    return MediaRules(
        allowed=checked(plan.settings.allowed_media_domains),
        server=names_of(server.host),
        server_port=server.port,
        server_root=str(plan.media_root),
        most_bytes=plan.settings.max_media_mb * 1_000_000,
    )
