"""Run a supervisor over a plan that a test wrote: ``python run_plan.py PLAN.json HOME [CODE ...]``, a forced check each. Exits as `qwen-fp8 start` would."""

import json
import os
import sys
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.service.start import start

plan = LaunchPlan.from_json(json.loads(Path(sys.argv[1]).read_text()))
console = Console()
try:
    outcome = start(plan, RunPaths(Path(sys.argv[2])), console, os.environ, force=sys.argv[3:])
except OpsError as error:
    print(f"Error: {error.message}", file=sys.stderr)
    sys.exit(error.exit_code)
if outcome.error:
    print(f"Error: {outcome.error.message}", file=sys.stderr)
sys.exit(outcome.exit_code)
