"""The house rules that a machine can check: rooms look only at rooms before them, files stay readable, nothing is swallowed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qwen_fp8_ops

PACKAGE = Path(qwen_fp8_ops.__file__).parent
NAME = PACKAGE.name
FILES = sorted(PACKAGE.rglob("*.py"))

ORDER = ("errors", "outside", "config", "weights", "engine", "gate", "plan", "slurm", "preflight", "service", "media", "report", "client", "cli")
CLOSED_TO_CLIENT = frozenset({"config", "plan", "preflight", "service"})
"""The client knows a base URL, a model name and a key, so that it works on a machine where none of this is."""

LONGEST_FILE = 400
HEAVY = ("vllm", "torch", "transformers", "gradio", "httpx", "huggingface_hub", "rich", "numpy", "PIL")

BLANKET_ALLOWED = {
    "gate/app.py": "a defect of the gate must refuse the request: it may neither let it pass unchecked nor end the API server",
}
"""Files that may catch every exception, with the reason."""


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return {"__init__.py": "", "__main__.py": "cli"}.get(first, first.removesuffix(".py"))


def modules_imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full name of each import, also inside functions and under TYPE_CHECKING, as relative ones and by ``import_module("...")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]) if node.level else node.module or ""
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("importlib.import_module", "import_module", "__import__"):
            yield from ((node.lineno, word.value) for word in node.args[:1] if isinstance(word, ast.Constant) and isinstance(word.value, str))


def rooms_imported(source: str, package: tuple[str, ...]) -> list[tuple[int, str]]:
    names = [(line, name.split(".")) for line, name in modules_imported(ast.parse(source), package)]
    return [(line, parts[1]) for line, parts in names if parts[0] == NAME and len(parts) > 1 and parts[1] != "__version__"]


def direction_faults(room: str, source: str, package: tuple[str, ...]) -> list[str]:
    found = []
    for line, other in rooms_imported(source, package):
        if other not in ORDER:
            found.append(f"line {line}: {other} is no room")
        elif room == "" or ORDER.index(other) > ORDER.index(room):
            found.append(f"line {line}: {room or 'the package itself'} imports {other}")
        elif room == "client" and other in CLOSED_TO_CLIENT:
            found.append(f"line {line}: client imports {other}")
    return found


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def is_blanket(handler: ast.expr | None) -> bool:
    if handler is None:
        return True
    names = handler.elts if isinstance(handler, ast.Tuple) else [handler]
    return any(ast.unparse(name).removeprefix("builtins.") in ("Exception", "BaseException") for name in names)


def blanket_faults(tree: ast.AST) -> list[str]:
    """Where every exception is caught and does not rise again."""
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and is_blanket(node.type)]
    found = [f"line {node.lineno}: catches everything" for node in handlers if not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) in ("suppress", "contextlib.suppress") and any(map(is_blanket, node.args)):
            found.append(f"line {node.lineno}: suppresses everything")
    return found


def shell_faults(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            shell = any(word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False) for word in node.keywords)
            if shell or called(node) in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
                found.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
    return found


def short(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_room_is_in_the_order() -> None:
    present = {room_of(path) for path in FILES} - {""}
    assert present <= set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    package = (NAME, *path.relative_to(PACKAGE).parts[:-1])
    assert direction_faults(room_of(path), path.read_text(encoding="utf-8"), package) == []


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", FILES, ids=short)
def test_no_shell_runs_and_no_exception_is_caught_blindly(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert shell_faults(tree) == []
    if short(path) not in BLANKET_ALLOWED:
        assert blanket_faults(tree) == []


def test_the_list_of_exceptions_names_only_files_that_need_it() -> None:
    needed = {short(path) for path in FILES if blanket_faults(ast.parse(path.read_text(encoding="utf-8")))}
    assert set(BLANKET_ALLOWED) <= needed


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("config", "from qwen_fp8_ops.engine.flags import SECRETS"),
        ("config", "def f():\n    import qwen_fp8_ops.plan.launch"),
        ("config", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..service import lock"),
        ("config", "from qwen_fp8_ops import service"),
        ("config", "import importlib\nimportlib.import_module('qwen_fp8_ops.report.text')"),
        ("client", "from qwen_fp8_ops.config.paths import RunPaths"),
        ("report", "from qwen_fp8_ops.cli.common import Call"),
        ("", "from qwen_fp8_ops.errors import OpsError"),
    ],
)
def test_a_wrong_import_is_seen_in_every_form(room: str, source: str) -> None:
    assert len(direction_faults(room, source, (NAME, room))) == 1


@pytest.mark.parametrize(
    "source",
    ["try: f()\nexcept: pass", "try: f()\nexcept Exception: pass", "try: f()\nexcept (OSError, BaseException): pass", "with suppress(Exception): f()"],
)
def test_a_blind_catch_is_seen_in_every_form(source: str) -> None:
    assert len(blanket_faults(ast.parse(source))) == 1


@pytest.mark.parametrize("source", ["run('ls', shell=True)", "Popen(x, shell=maybe)", "os.system('ls')"])
def test_a_shell_is_seen_in_every_form(source: str) -> None:
    assert len(shell_faults(ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("status --json", 3),
        ("logs", 3),
        ("config --json", 0),
        *((f"{verb} --help", 0) for verb in ("start", "chat", "caption", "submit")),
    ],
)
def test_a_light_verb_imports_nothing_heavy(words: str, code: int, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from qwen_fp8_ops.cli import run\n"
        f"code = run({words.split()!r})\n"
        f"print('code', int(code), *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        env={"QWEN_FP8_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.splitlines()[-1] == f"code {code}", done.stderr
