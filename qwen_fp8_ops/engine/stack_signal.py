"""On SIGUSR2 each process of an engine writes the stacks of all its threads to its log, and goes on.

Python's ``faulthandler`` does it from C: also when the main thread hangs in a driver call or holds the interpreter's lock. It is the
way that needs no rights: py-spy may look into another's process only as root, or where kernel.yama.ptrace_scope is 0. Not SIGUSR1,
which NCCL may take for itself.
"""

from __future__ import annotations

import faulthandler
import signal
import sys

STACK_SIGNAL = signal.SIGUSR2


def answer_stack_signal() -> None:
    """To be called in every process of an engine, before anything heavy is imported. Does nothing where stderr is no file."""
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        return
    faulthandler.register(STACK_SIGNAL, file=sys.stderr, all_threads=True)
