"""Start a supervisor in the background, as `qwen-fp8 start --detach` would: ``python start_detached.py HOME COMMAND ...``"""

import sys
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.service.detach import start_detached

try:
    start_detached(sys.argv[2:], RunPaths(Path(sys.argv[1])), Console())
except OpsError as error:
    print(f"Error: {error.message} [{error.code}]", file=sys.stderr)
    sys.exit(error.exit_code)
