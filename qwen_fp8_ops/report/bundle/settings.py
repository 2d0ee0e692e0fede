"""The settings in a bundle: what the file says, what it comes to, and the environment beside it. No comment, no unknown line is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qwen_fp8_ops.config.env_file import Entry, env_line
from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.report.bundle.case import Case, Member
from qwen_fp8_ops.report.bundle.mask import KEY_LIKE, masked
from qwen_fp8_ops.report.bundle.secrets import config_entries, is_secret_name

SHOWN = re.compile(
    r"(?i)(?:QWEN_FP8|SLURM|SLURMD|CUDA|NVIDIA|NCCL|VLLM|HF|HUGGINGFACE|TORCH|PYTORCH|TRITON|OMP|MKL|LD|PYTHON|LC|XDG|CONDA|VIRTUAL_ENV|LANG|TMPDIR|HOME|USER|PATH|SHELL"
    r"|TERM|HTTPS?_PROXY|NO_PROXY|ALL_PROXY|UID)(?:_|$|(?<=CUDA)|(?<=PYTHON))"
)
"""Variables that the service, the engine or SLURM reads; nobody needs the others."""


def settings_members(case: Case) -> Iterator[Member]:
    """
    Raises:
        ConfigError: the settings are wrong; the file's own lines are given before that.
    """
    file = case.config_file
    if file is None:
        yield Member("config/config.env.txt", "There is no config.env: every key has its default.\n")
    else:
        lines = [f"# {file}, without its comments", *(_line(entry) for entry in config_entries(case))]
        yield Member("config/config.env.txt", "\n".join(lines) + "\n")
    configuration = case.configuration
    head = [f"# profile {configuration.profile}, config file {configuration.config_file or 'none'}"]
    rows = [f"{env_line(key, source.text)}  # {source.origin}" for key, source in configuration.sources.items()]
    yield Member("config/settings.txt", "\n".join([*head, *rows]) + "\n")


def _line(entry: Entry) -> str:
    if entry.problem:
        # The text of a line that is no setting may be anything, a key on its own for one.
        return f"# {entry.origin}: {entry.problem if ' line ' not in entry.origin else 'cannot be used as a setting; its text is left out'}"
    number = entry.origin.rpartition(" ")[2]
    if entry.key not in OPTIONS:
        name = entry.key if re.fullmatch(KEY_LIKE, entry.key) else masked("unknown key")  # a slip of the pen is worth showing
        return f"# line {number}: a key that is not ours: {name}={masked('unknown key')}"
    return f"{env_line(entry.key, entry.text)}  # line {number}"


def environment_members(case: Case) -> Iterator[Member]:
    shown = {name: masked("by its name") if is_secret_name(name) else text for name, text in case.environ.items() if SHOWN.match(name)}
    yield Member("environment.txt", "".join(f"{env_line(name, text)}\n" for name, text in sorted(shown.items())))
