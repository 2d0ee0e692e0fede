"""``python -m qwen_fp8_ops.weights.demo FOLDER``: make the demo checkpoint; progress on stderr, exit codes of ``errors.ExitCode``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.weights.demo import ensure
from qwen_fp8_ops.weights.demo.recipe import ON_CPU, ON_GPU


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m qwen_fp8_ops.weights.demo", description="Make the demo checkpoint, unless it is there.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--fp8", action="store_true", help="the form that a GPU serves; without it the bfloat16 one for CPUs")
    asked = parser.parse_args(arguments)
    try:
        ensure(asked.folder, _say, ON_GPU if asked.fp8 else ON_CPU)
    except OpsError as error:
        _say(f"Error: {error.message}")
        for line in error.fix.splitlines():
            _say(f"  {line}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("Error: Interrupted.")
        return ExitCode.INTERRUPTED
    return ExitCode.DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
