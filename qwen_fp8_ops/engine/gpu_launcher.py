"""vLLM's own ``vllm serve``, whose processes all answer the stack signal: ``python -m qwen_fp8_ops.engine.gpu_launcher serve MODEL``.

A forked child inherits that; a spawned one runs the main module of its parent once more, under the second of the names below.
"""

from __future__ import annotations

from importlib import import_module

from qwen_fp8_ops.engine.stack_signal import answer_stack_signal

if __name__ in ("__main__", "__mp_main__"):
    answer_stack_signal()
if __name__ == "__main__":
    import_module("vllm.entrypoints.cli.main").main()
