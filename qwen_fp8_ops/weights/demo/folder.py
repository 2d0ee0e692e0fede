"""Bring the demo checkpoint's folder into being, whole or not at all.

It is filled under another name beside its place and renamed at the end, so an interrupted build leaves nothing half and two
builds at once both end with a good folder. Nothing is ever deleted but files that a label of ours lists.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import process
from qwen_fp8_ops.outside.files import make_folder, write_error
from qwen_fp8_ops.weights.demo.recipe import LABEL, ON_CPU, Recipe, attach_label, read_label


def is_current(folder: Path, recipe: Recipe = ON_CPU) -> bool:
    """Is the folder whole, and of this recipe's present version? Reads one small file and the sizes of the others."""
    label = read_label(folder)
    if label is None or (label.recipe, label.version) != (recipe.name, recipe.version):
        return False
    try:
        return all((folder / name).stat().st_size == size for name, size in label.files.items())
    except OSError:
        return False


def ensure(folder: Path, say: Callable[[str], None], recipe: Recipe = ON_CPU) -> None:
    """Make the checkpoint in ``folder``, unless it is there already. Takes seconds and the packages of the ``cpu`` extra.

    Raises:
        OpsError: the folder holds something that is not ours; it cannot be written; a package is missing.
    """
    # Where the path is a link, the folder it points to is replaced and the link stays.
    folder = Path(os.path.realpath(folder.expanduser()))
    if is_current(folder, recipe):
        return
    _refuse_what_is_not_ours(folder)
    make_folder(folder.parent)
    _sweep(folder)
    work = folder.with_name(_building_prefix(folder) + secrets.token_hex(4))
    try:
        work.mkdir()
        recipe.write(work, say)
        attach_label(work, recipe)
        _put_in_place(work, folder, recipe)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(_aside(work), ignore_errors=True)


def _put_in_place(work: Path, folder: Path, recipe: Recipe) -> None:
    while not is_current(folder, recipe):
        _refuse_what_is_not_ours(folder)
        try:
            # A folder may only be renamed onto an empty one, so an older checkpoint first steps aside.
            if (folder / LABEL).exists():
                os.rename(folder, _aside(work))
            os.rename(work, folder)
        except FileNotFoundError:
            continue  # another build moved the old folder away first
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another build put its folder there first; the loop looks whether it is a good one.


def _aside(work: Path) -> Path:
    return work.with_name(work.name + ".old")


def _refuse_what_is_not_ours(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    fix = f"Move it away (mv '{folder}' '{folder}.mine'), or let MODEL_PATH name another folder."
    if not folder.is_dir():
        raise OpsError(f"The demo checkpoint cannot be made at {folder}: that is a file", code="not-ours", fix=fix)
    there = {path.name for path in folder.iterdir()}
    label = read_label(folder)
    strangers = sorted(there if label is None else there - label.files.keys() - {LABEL})
    if strangers:
        raise OpsError(
            f"The demo checkpoint cannot be made in {folder}: it holds files that are not the demo's, such as {strangers[0]}", code="not-ours", fix=fix
        )


def _building_prefix(folder: Path) -> str:
    """Names the process that builds, so that another one can tell whether it still does."""
    me = process.identify(os.getpid())
    return f".{folder.name}.building-{process.host_name()}-{os.getpid()}-{me.start_ticks if me else 0}-"


def _sweep(folder: Path) -> None:
    """Remove what builds of this host left beside the folder when they were killed."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.building-{re.escape(process.host_name())}-(\d+)-(\d+)-[0-9a-f]+(\.old)?")
    for path in folder.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match:
            builder = process.identify(int(match[1]))
            if builder is None or builder.start_ticks != int(match[2]):
                shutil.rmtree(path, ignore_errors=True)
