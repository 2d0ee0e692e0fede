"""What a changed setting takes to come into force in a service that runs: another engine, the other programs too, or another start."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_fp8_ops.config.load import Configuration
from qwen_fp8_ops.engine import weight_cache
from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.plan.launch import LaunchPlan

OTHER_PROGRAMS = frozenset({"HOST", "PORT", "MEDIA_HOST", "MEDIA_PORT", "MEDIA_ROOT", "WEIGHT_CACHE"})
"""Addresses that clients were told, the media server's own settings, and which programs there are."""

SUPERVISOR = frozenset({"LOG_FORMAT"})
"""Read once, when the supervisor starts."""

JOB = frozenset({"REQUIRE_SLURM", "SLURM_PARTITION", "SLURM_TIME", "SLURM_MEM", "SLURM_CPUS", "SLURM_JOB_NAME", "SLURM_EXTRA_ARGS"})
"""Of the job that runs they can change nothing any more. From config.env they are for the next one."""


@dataclass(frozen=True)
class Beyond:
    """A changed setting that more than the engine hangs on: ``said`` with where it came from, ``why``, and the command that does it."""

    said: str
    why: str
    command: str


def require_engine_alone(old: LaunchPlan, new: LaunchPlan, configuration: Configuration) -> None:
    """
    Args:
        configuration: what the new plan was made from.

    Raises:
        ConfigError: a setting is another one that needs more than a new engine; each is named, with the commands to use.
    """
    found = [one for key in _changed(old, new) if (one := _beyond(key, old, new, configuration))]
    if not found:
        return
    told = "".join(f"\n  {one.said}: {one.why}" for one in found)
    commands = list(dict.fromkeys(one.command for one in found))
    keys = "This setting needs" if len(found) == 1 else "These settings need"
    raise ConfigError(f"{keys} more than another engine:{told}", code="beyond-engine", fix="\n".join([*commands, "Or leave them as they are."]))


def _changed(old: LaunchPlan, new: LaunchPlan) -> list[str]:
    return [key for key, text in new.texts.items() if old.texts.get(key, text) != text]


def _beyond(key: str, old: LaunchPlan, new: LaunchPlan, configuration: Configuration) -> Beyond | None:
    source = configuration.sources[key]
    said = f"{key}={source.text or 'empty'} ({source.origin}; now {old.texts[key] or 'empty'})"
    with_all = f"qwen-fp8 restart --set {key}={source.text}" if source.origin == "--set" else "qwen-fp8 restart"
    if key in OTHER_PROGRAMS:
        return Beyond(said, "other programs than the engine have to follow, or clients", with_all)
    if key in SUPERVISOR:
        return Beyond(said, "the supervisor reads it when it starts", "./stop_service.sh && ./start_service.sh")
    if key in JOB:
        by_hand = source.origin == "--set"
        return Beyond(said, "the SLURM job runs already", f"qwen-fp8 submit --set {key}={source.text}") if by_hand else None
    if key in weight_cache.KEYS and _weights_change(old, new):
        return Beyond(said, "the weights in GPU memory would be others (WEIGHT_CACHE=on)", with_all)
    return None


def _weights_change(old: LaunchPlan, new: LaunchPlan) -> bool:
    return bool(old.weight_cache and new.weight_cache and old.weight_cache.argv != new.weight_cache.argv)
