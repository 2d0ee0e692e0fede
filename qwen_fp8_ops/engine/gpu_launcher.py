"""vLLM's own command line, whose processes all answer the stack signal: ``python -m qwen_fp8_ops.engine.gpu_launcher serve MODEL``.

``serve`` is the engine, ``preload`` the weight cache. A forked child inherits what is prepared here; a spawned one runs the main module
of its parent once more, under the second of the names below and with the same arguments.
"""

from __future__ import annotations

import sys
from importlib import import_module

from qwen_fp8_ops.engine.mapped_weights import complete_mapped_weights
from qwen_fp8_ops.engine.stack_signal import answer_stack_signal

if __name__ in ("__main__", "__mp_main__"):
    answer_stack_signal()
    complete_mapped_weights(sys.argv)
if __name__ == "__main__":
    import_module("vllm.entrypoints.cli.main").main()
