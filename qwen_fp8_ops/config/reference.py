"""The reference of the settings, made from their table: the text of config.env, and the tables of the README."""

from __future__ import annotations

from itertools import groupby

from qwen_fp8_ops.config.env_file import env_line
from qwen_fp8_ops.config.settings import OPTIONS, Option

ACTIVE = frozenset(
    {
        *("PORT", "TENSOR_PARALLEL_SIZE", "MAX_MODEL_LEN", "GPU_MEMORY_UTIL", "MAX_NUM_SEQS", "DTYPE", "TEMPERATURE", "MAX_TOKENS", "TOP_P", "TOP_K"),
        *("MODEL_PATH", "HOST", "MEDIA_ROOT", "API_KEYS_FILE", "SLURM_PARTITION"),
    }
)
"""Keys that config.env sets: those of the first deployment, and those that differ from site to site. The others stand there as comments."""

MARKERS = ("<!-- settings -->", "<!-- /settings -->")
"""What stands before and after the tables in README.md."""

HEAD = """\
# Settings of the service: KEY=value, one a line. This file is read, never run: no variables, no commands; quotes are optional.
# A line that begins with # is a comment; take the # away to set the key. Without a line, a key has its default.
# Later ones win: this file, --profile NAME, QWEN_FP8_KEY=value in the environment, --set KEY=value.
# `qwen-fp8 config` shows every value and where it came from.
"""


def config_env() -> str:
    """The text of config.env: every key with its help, what is allowed, and its default."""
    parts = [HEAD]
    for group, rows in groupby(OPTIONS.values(), key=lambda row: row.group):
        parts.append(f"\n# --- {group} ---\n")
        parts += [f"\n{documentation(row)}\n{setting(row)}\n" for row in rows]
    return "".join(parts)


def documentation(row: Option) -> str:
    """The comment line of one key."""
    return f"# {row.help} ({row.kind.allowed()}; default {row.default or 'empty'})"


def setting(row: Option) -> str:
    line = env_line(row.key, row.default)
    return line if row.key in ACTIVE else f"# {line}"


def markdown() -> str:
    """The tables of the README, one for each group."""
    parts = []
    for group, rows in groupby(OPTIONS.values(), key=lambda row: row.group):
        lines = [f"**{group}**", "", "| Key | Default | Allowed | Meaning |", "|---|---|---|---|"]
        lines += [f"| `{row.key}` | {f'`{_cell(row.default)}`' if row.default else 'empty'} | {_cell(row.kind.allowed())} | {_cell(row.help)} |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def with_tables(readme: str) -> str:
    """The README's text with the tables between its markers; unchanged when it has none."""
    before, opening, rest = readme.partition(MARKERS[0])
    _, closing, after = rest.partition(MARKERS[1])
    return f"{before}{opening}\n{markdown()}{closing}{after}" if closing else readme


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
