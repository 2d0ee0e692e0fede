"""The oldest Python that will do. Every Python 3 must be able to read this file, so that an old one can say what it lacks."""

import sys

NEEDED = (3, 11)


def require_python():  # type: () -> None
    """Exit with 2 and a remedy when this interpreter is too old."""
    if sys.version_info >= NEEDED:
        return
    sys.stderr.write(
        "Error: Python {0}.{1} or newer is needed; {2} is Python {3}\n"
        "  Put a newer one first on PATH (module load, conda activate, apt-get install python3.11 python3.11-venv),\n"
        "  or name an environment that has one: QWEN_FP8_PYTHON=/path/to/python\n".format(
            NEEDED[0], NEEDED[1], sys.executable or "this interpreter", sys.version.split()[0]
        )
    )
    sys.exit(2)
