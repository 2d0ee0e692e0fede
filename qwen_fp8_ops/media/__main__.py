"""``python -m qwen_fp8_ops.media``: the media server as a program of its own, which is how the supervisor runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.media.server import log, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qwen_fp8_ops.media", description="Serve the files of a folder over HTTP, read only.")
    parser.add_argument("--root", type=Path, required=True, help="folder to serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, choices=range(65536), metavar="PORT", default=8080, help="port to listen on, 0 for any (default: %(default)s)")
    parser.add_argument("--access-log", action="store_true", help="one line for each request")
    options = parser.parse_args()
    try:
        serve(options.root, options.host, options.port, access_log=options.access_log)
    except OpsError as error:
        log(f"Error: {error.message}")
        return error.exit_code
    return 0


sys.exit(main())
