from qwen_fp8_ops.cli import main

main()
