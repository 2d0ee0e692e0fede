"""What is written about the settings is what the table says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.reference import ACTIVE, MARKERS, config_env, documentation, markdown, setting, with_tables
from qwen_fp8_ops.config.settings import OPTIONS

CHECKOUT = Path(__file__).resolve().parents[2]
AGAIN = "run scripts/write_reference.py"


def edited_here() -> bool:
    """An operator may set keys in config.env; what is committed has to agree with the defaults."""
    if shutil.which("git") is None:
        return False
    return subprocess.run(["git", "-C", str(CHECKOUT), "diff", "--quiet", "HEAD", "--", "config.env"], capture_output=True, check=False, timeout=60).returncode == 1


def test_config_env_explains_every_key_as_the_table_does() -> None:
    lines = (CHECKOUT / "config.env").read_text(encoding="utf-8").splitlines()
    keys = [match[1] for line in lines if (match := re.match(r"(?:# )?([A-Z_]+)=", line))]
    assert keys == list(OPTIONS), AGAIN
    assert [row.key for row in OPTIONS.values() if documentation(row) not in lines] == [], AGAIN


def test_config_env_agrees_with_the_defaults() -> None:
    if edited_here():
        load(config_file=CHECKOUT / "config.env")
    else:
        assert (CHECKOUT / "config.env").read_text(encoding="utf-8") == config_env(), AGAIN


def test_the_written_config_env_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.env"
    path.write_text(config_env(), encoding="utf-8")
    found = load(config_file=path)
    assert found.settings == load().settings
    assert {key for key, source in found.sources.items() if source.origin != "default"} == ACTIVE


def test_every_commented_key_can_be_taken_into_use(tmp_path: Path) -> None:
    path = tmp_path / "config.env"
    path.write_text(re.sub(r"^# ([A-Z_]+=)", r"\1", config_env(), flags=re.MULTILINE), encoding="utf-8")
    found = load(config_file=path)
    assert found.settings == load().settings
    assert {source.origin for source in found.sources.values()}.isdisjoint({"default"})


@pytest.mark.parametrize("row", OPTIONS.values(), ids=lambda row: row.key)
def test_a_key_has_one_line_of_help_with_what_is_allowed_and_its_default(row: object) -> None:
    line = documentation(row)  # type: ignore[arg-type]
    assert "\n" not in line
    assert re.fullmatch(r"# [^A-Z\s]?.{8,}; default .+\)", line)
    assert setting(row).removeprefix("# ").startswith(f"{row.key}=")  # type: ignore[arg-type,attr-defined]


def test_the_tables_of_the_readme_hold_every_key_in_four_columns() -> None:
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown().splitlines() if line.startswith("| `")]
    assert [row[0].strip(" `") for row in rows] == list(OPTIONS)
    assert {len(row) for row in rows} == {4}


def test_the_readme_holds_these_tables() -> None:
    readme = CHECKOUT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    assert with_tables(text) == text, AGAIN


def test_the_tables_go_between_the_markers_and_nowhere_else() -> None:
    opening, closing = MARKERS
    assert with_tables(f"a\n{opening}\nold\n{closing}\nb\n") == f"a\n{opening}\n{markdown()}{closing}\nb\n"
    assert with_tables("no markers") == "no markers"
    assert with_tables(f"only {opening}") == f"only {opening}"
