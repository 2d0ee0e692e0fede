"""How the demo model is trained: ``python -m qwen_fp8_ops.weights.demo.training FOLDER``."""
