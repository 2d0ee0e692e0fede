"""What a job runs in place of ``qwen-fp8 start``: the same start, but the engine is the stand-in: ``standin_job.py HOME KEY=VALUE...``"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.plan.situation import plan_here
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.service.start import start

ENGINE = Path(__file__).parent.parent / "service" / "standin_engine.py"


def main(home: Path, texts: list[str]) -> int:
    paths = RunPaths(home)
    try:
        plan = plan_here(load(profiles=["demo"], overrides=texts), paths, os.environ)
        argv = (sys.executable, str(ENGINE), str(plan.engines[0].port), str(home / "behaviour.json"))
        plan = replace(plan, programs=tuple(replace(program, argv=argv) if program.is_engine else program for program in plan.programs))
        outcome = start(plan, paths, Console(), os.environ)
    except OpsError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return error.exit_code
    if outcome.error:
        print(f"Error: {outcome.error.message}", file=sys.stderr)
    return outcome.exit_code


sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
