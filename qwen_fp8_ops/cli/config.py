"""``config``: every setting, its value, and what gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.config.load import Configuration, Source, nearest_keys
from qwen_fp8_ops.config.settings import OPTIONS, Option
from qwen_fp8_ops.errors import ConfigError, OpsError

WIDTH = 80


@click.command(epilog="Examples:\n\n\b\n  qwen-fp8 config\n  qwen-fp8 config --changed --profile demo\n  qwen-fp8 config PORT MAX_MODEL_LEN --json")
@click.argument("keys", nargs=-1, metavar="[KEY ...]")
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@shared_options
def config(call: Call, keys: tuple[str, ...], changed: bool) -> None:
    """Show every setting, or only KEY ..., and where it came from. A named KEY is explained as well."""
    from qwen_fp8_ops.engine.flags import refuse_clashes

    asked = _known(keys)
    configuration = call.configuration()
    refuse_clashes(configuration.settings.vllm_extra_args)
    rows = [row for row in asked or OPTIONS.values() if not changed or _differs(configuration, row)]
    text = "\n\n".join(_explained(row, configuration.sources[row.key]) for row in rows) if asked and rows else _table(configuration, rows)
    differs = _of_running_service(call, configuration, rows)
    note = "".join(f"\n  {key}={value or '(empty)'}" for key, value in differs.items())
    call.give({**_as_json(configuration, rows), "running": differs or None}, f"{text}\n\nThe service that runs has:{note}" if note else text)


def _of_running_service(call: Call, configuration: Configuration, rows: Sequence[Option]) -> dict[str, str]:
    """What is otherwise in the service that runs here: it was started, or restarted, with other settings. Empty when none runs."""
    from qwen_fp8_ops.outside import lock
    from qwen_fp8_ops.outside.files import read_json
    from qwen_fp8_ops.plan.launch import LaunchPlan

    try:
        holder = lock.holder(call.paths.lock)
        if holder is None or not holder.alive:
            return {}
        texts = LaunchPlan.from_json(read_json(call.paths.plan)).texts
    except OpsError:
        return {}  # damaged, or of another version: `status` tells
    return {row.key: texts[row.key] for row in rows if row.key in texts and row.kind.parse(texts[row.key]) != _value(configuration, row)}


def _known(keys: Sequence[str]) -> list[Option]:
    """
    Raises:
        ConfigError: naming every word that is no key.
    """
    unknown = [f"Unknown key {key}{nearest_keys(key)}" for key in keys if key.upper() not in OPTIONS]
    if unknown:
        raise ConfigError("\n  ".join(unknown), code="unknown-key", fix="See `qwen-fp8 config`.")
    return [OPTIONS[key] for key in dict.fromkeys(key.upper() for key in keys)]


def _value(configuration: Configuration, row: Option) -> Any:
    return getattr(configuration.settings, row.key.lower())


def _differs(configuration: Configuration, row: Option) -> bool:
    return bool(_value(configuration, row) != row.kind.parse(row.default))


def _as_json(configuration: Configuration, rows: Sequence[Option]) -> dict[str, Any]:
    sources: Mapping[str, Source] = configuration.sources
    return {
        "schema": 1,
        "ok": True,
        "profile": configuration.profile,
        "config_file": str(configuration.config_file) if configuration.config_file else None,
        "settings": {
            row.key: {"value": _value(configuration, row), "text": sources[row.key].text, "source": sources[row.key].origin} for row in rows
        },
    }


def _explained(row: Option, source: Source) -> str:
    return f"{row.key}={source.text}  ({source.origin})\n  {row.help}\n  allowed: {row.kind.allowed()}; default: {row.default or 'empty'}"


def _table(configuration: Configuration, rows: Sequence[Option]) -> str:
    """Three columns within 80; a value too long for its column sends the source to the next line."""
    head = f"profile: {configuration.profile}\nfile:    {configuration.config_file or 'no config.env'}"
    if not rows:
        return f"{head}\n\nNothing differs from the defaults."
    texts = [configuration.sources[row.key].text for row in rows]
    keys_wide = max(len(row.key) for row in rows) + 2
    sources_wide = max(len(configuration.sources[row.key].origin) for row in rows)
    values_wide = max(8, min(max(map(len, texts)), WIDTH - 2 - keys_wide - 2 - sources_wide))
    lines = [head]
    for group, members in groupby(rows, key=lambda row: row.group):
        lines += ["", group]
        for row in members:
            source = configuration.sources[row.key]
            value = source.text or "(empty)"
            gap = "  " if len(value) <= values_wide else "\n" + " " * (2 + keys_wide + values_wide + 2)
            lines.append(f"  {row.key:<{keys_wide}}{value:<{values_wide}}{gap}{source.origin}")
    return "\n".join(lines)
