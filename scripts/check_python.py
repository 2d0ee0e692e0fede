#!/usr/bin/env python3
"""Can this interpreter run the project? Says what it lacks and the pip command that helps, and exits 2.

Every Python 3 must be able to read this file: the version is judged after it was read.
"""

import os
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from venv_setup.version import require_python  # noqa: E402 - the folder has to be on the path first

require_python()

from venv_setup.project import Project, lacking, name_of  # noqa: E402 - an old Python could not read it


def main() -> int:
    missing = lacking(Project.read(os.path.dirname(HERE)).dependencies, sys.path)
    if missing:
        sys.stderr.write("Error: {0} lacks {1}\n".format(sys.executable, ", ".join(map(name_of, missing))))
        sys.stderr.write("  {0} -m pip install {1}\n".format(shlex.quote(sys.executable), " ".join(map(shlex.quote, missing))))
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
