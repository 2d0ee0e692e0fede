"""Write config.env and the tables of README.md anew from the table of settings; run it after a change of config/settings.py.

    .venv/bin/python scripts/write_reference.py

It is for those who develop the project: values that were edited in config.env go back to their defaults.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from qwen_fp8_ops.config.reference import config_env, with_tables  # noqa: E402  (found beside this script, installed or not)


def main() -> None:
    (CHECKOUT / "config.env").write_text(config_env(), encoding="utf-8")
    readme = CHECKOUT / "README.md"
    if readme.exists():
        readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
