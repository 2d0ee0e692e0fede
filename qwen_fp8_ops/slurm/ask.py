"""One question to SLURM: its answer, or one clear line that says why there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import slurm
from qwen_fp8_ops.outside.slurm import Reply

UNREACHABLE = re.compile(r"Unable to contact slurm controller|Connection refused|Connection timed out|Socket timed out|Zero Bytes", re.IGNORECASE)


def ask(argv: Sequence[str]) -> str:
    """What the command printed.

    Raises:
        OpsError: ``slurm-missing``, ``slurm-silent`` (hung, or too slow), ``slurm-unreachable`` or ``slurm-refused``, which is the
            answer "no" of a controller that works.
    """
    reply = slurm.run(argv)
    if reply.ok:
        return reply.stdout
    raise refusal(argv[0], reply)


def refusal(command: str, reply: Reply) -> OpsError:
    if reply.returncode is None and reply.problem.endswith("is not installed here"):
        return OpsError(
            f"SLURM is not here: {reply.problem}",
            code="slurm-missing",
            fix="Run this on a node of the cluster (module load slurm, where commands come by modules).",
        )
    if reply.returncode is None:
        return OpsError(
            f"SLURM does not answer: {reply.problem}", code="slurm-silent", fix="scontrol ping   tells whether the controller is up; try again later."
        )
    # The last line is the reason; lines before it are what led there.
    said = (reply.problem or reply.stdout).strip().splitlines()
    reason = re.sub(r"^(\w+: )?(\w+ )?error: ", "", said[-1]) if said else f"exit code {reply.returncode}"
    if UNREACHABLE.search(reply.problem):
        return OpsError(
            f"SLURM's controller cannot be reached: {reason}", code="slurm-unreachable", fix="scontrol ping   tells whether it is up; try again later."
        )
    return OpsError(f"{command}: {reason}", code="slurm-refused")
