"""The folder .venv: made where it is missing or broken, cleared of what a killed pip left behind."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from venv_setup.child import Outcome, run
from venv_setup.pip import Say


def make(venv: Path, say: Say) -> Path:
    """Make the environment unless it is there and has a working pip; gives its interpreter.

    Raises:
        OpsError: it cannot be made.
    """
    python = venv / "bin" / "python"
    if python.exists() and _quietly(str(python), "-I", "-m", "pip", "--version").ok:
        return python
    say(f"making {venv.name} with Python {sys.version.split()[0]} of {sys.executable}")
    made = _quietly(sys.executable, "-m", "venv", "--clear", str(venv))
    if not made.ok and _lacks_ensurepip():
        made = _make_with_other_pip(venv, python)
    if not made.ok:
        raise OpsError(f"Cannot make {venv}\n{made.output.strip()}", code="setup-failed", fix=_remedy())
    return python


def _lacks_ensurepip() -> bool:
    """Debian cuts ensurepip out of its Python and keeps it in a package of its own."""
    return not _quietly(sys.executable, "-c", "import ensurepip").ok


def _make_with_other_pip(venv: Path, python: Path) -> Outcome:
    """Let the pip that this Python has install one into the environment."""
    made = _quietly(sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv))
    if not made.ok:
        return made
    return _quietly(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-input", "--disable-pip-version-check", "pip")


def _remedy() -> str:
    if _lacks_ensurepip():
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return f"This Python has neither ensurepip nor a pip of its own: apt-get install {version}-venv\nor use another Python: QWEN_FP8_PYTHON=/path/to/python"
    return "Check space and rights: df -h . ; ls -ld ."


def _quietly(*argv: str) -> Outcome:
    return run(argv, cwd=Path("/"), environ=os.environ, on_line=lambda line: None)


def packages(venv: Path) -> Path:
    """Its site-packages folder."""
    return next((venv / "lib").glob("python3*/site-packages"))


def heal(site: Path) -> list[str]:
    """Remove the traces of a pip that was killed while it unpacked or replaced a package; gives the names removed.

    pip takes a package for installed when it finds its .dist-info, which it fills before the package is whole: the last thing
    it writes is a RECORD that lists INSTALLER. What it was about to replace is named ``~ame``.
    """
    removed = []
    for path in site.iterdir():
        half = path.suffix == ".dist-info" and not _is_whole(path)
        if half or path.name.startswith("~"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path.name)
    return removed


def _is_whole(information: Path) -> bool:
    try:
        return f"{information.name}/INSTALLER," in (information / "RECORD").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
