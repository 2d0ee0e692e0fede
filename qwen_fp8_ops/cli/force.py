"""``--force CODE``: start although a check fails, named by its code so that nothing else is overridden with it."""

from __future__ import annotations

import click


def _known(context: click.Context, _: click.Parameter, codes: tuple[str, ...]) -> tuple[str, ...]:
    """
    Raises:
        click.UsageError: codes that no check has, each with those that could have been meant.
    """
    if not codes:
        return codes
    from qwen_fp8_ops.preflight.checks import is_known, nearest_codes

    wrong = [f"--force {code}: no check has this code{_meant(nearest_codes(code))}" for code in codes if not is_known(code)]
    if wrong:
        raise click.UsageError("\n  ".join(wrong), context)
    return codes


def _meant(nearest: list[str]) -> str:
    return f"; did you mean {' or '.join(nearest)}?" if nearest else "; `qwen-fp8 doctor --codes` lists them"


force_option = click.option(
    "--force",
    multiple=True,
    metavar="CODE",
    callback=_known,
    help="Start although this check fails; may be repeated. `qwen-fp8 doctor --codes` lists the codes.",
)
