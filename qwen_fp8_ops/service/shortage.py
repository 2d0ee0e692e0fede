"""When the machine has no open file, memory or process left for us. Soon there may be some again: programs are better watched badly, or
ended late, than not at all.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from qwen_fp8_ops.service.ladder import Pause

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
AGAIN_SECONDS = 0.25

Result = TypeVar("Result")


def words(error: OSError) -> str:
    """What to tell of a shortage.

    Raises:
        OSError: the error itself, when it is none.
    """
    if error.errno not in SHORTAGES:
        raise error
    return f"The machine has no more for us: {error.strerror}; it is tried again"


def patiently(action: Callable[[], Result], pause: Pause, tell: Callable[[str], None]) -> Result:
    """Do what must not be left undone, as often as it takes. What it had begun is done once more.

    Raises:
        OSError: it failed for another reason than a shortage.
    """
    while True:
        try:
            return action()
        except OSError as error:
            tell(words(error))
            pause(AGAIN_SECONDS)
