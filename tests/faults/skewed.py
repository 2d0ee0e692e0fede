"""Run a script under a wall clock that a file moves: ``python skewed.py OFFSET_FILE SCRIPT ARGUMENTS ...``

Seconds to add are read at each look at the clock. The monotonic clock is nobody's to move, here as under Linux.
"""

import runpy
import sys
import time
from pathlib import Path

offset_file, *command = sys.argv[1:]
true_time = time.time
time.time = lambda: true_time() + float(Path(offset_file).read_text())
sys.argv = command
sys.path[0] = str(Path(command[0]).parent)
runpy.run_path(command[0], run_name="__main__")
