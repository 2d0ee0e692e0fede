"""Run Qwen3-VL-235B-A22B-Thinking-FP8 on one node and trust it."""

__version__ = "0.1.0"
