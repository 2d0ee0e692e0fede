"""What is installed in this Python, read from its files: importing torch or vLLM would take seconds."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TorchBuild:
    """``cuda`` is the CUDA it was built with, such as "13.0"; None in a build for CPUs."""

    version: str
    cuda: str | None


def installed_version(distribution: str) -> str | None:
    """As `pip show DISTRIBUTION`; None when it is not there."""
    from importlib.metadata import PackageNotFoundError, version  # 10 ms that `status` need not pay for torch_build

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def torch_build() -> TorchBuild | None:
    """As `python -c 'import torch; print(torch.__version__, torch.version.cuda)'`; None without torch, or when it does not tell."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    release = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return TorchBuild(release[1], cuda[1] if cuda else None) if release else None
