"""``python -m qwen_fp8_ops.weights.demo FOLDER``: make the demo checkpoint; progress on stderr, exit codes of ``errors.ExitCode``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.weights.demo import ensure


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m qwen_fp8_ops.weights.demo", description="Make the demo checkpoint, unless it is there.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args(arguments).folder
    try:
        ensure(folder, _say)
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
