"""How large the tests of whole data sets are: a sample with all others, or the sizes that a release is tried with.

make test PYTEST_ARGS="tests/live/test_caption.py tests/live/test_qa.py" BATCH_ITEMS=200 BATCH_KILLS=20
"""

from __future__ import annotations

import os


def scaled(items: int, kills: int) -> tuple[int, int]:
    return int(os.environ.get("BATCH_ITEMS", items)), int(os.environ.get("BATCH_KILLS", kills))
