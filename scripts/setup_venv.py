#!/usr/bin/env python3
"""Make or update .venv in the checkout this file lies in; a set-up that was interrupted goes on.

    python3 scripts/setup_venv.py --extra cpu --extra dev

Every Python 3 must be able to read this file: the version is judged after it was read.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from venv_setup.version import require_python  # noqa: E402 - the folder has to be on the path first

require_python()

from venv_setup.main import main  # noqa: E402 - an old Python could not read it

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
