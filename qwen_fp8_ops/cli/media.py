"""``qwen-fp8 media``: the media server alone."""

from __future__ import annotations

from pathlib import Path

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.media.server import serve
from qwen_fp8_ops.outside.files import make_folder


@click.command()
@click.option("--root", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder to serve, made if missing; default: MEDIA_ROOT.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on; default: MEDIA_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on, 0 for any; default: MEDIA_PORT.")
@click.option("--access-log", is_flag=True, help="One line for each request.")
@shared_options
def media(call: Call, root: Path | None, host: str | None, port: int | None, access_log: bool) -> None:
    """Run the media server alone: the files of a folder over HTTP, read only. Ctrl+C ends it."""
    settings = call.configuration().settings
    folder = root or settings.folder(settings.media_root, call.paths.home)
    make_folder(folder)

    def ready(url: str) -> None:
        call.give({"schema": 1, "ok": True, "url": url, "root": str(folder)}, url)

    serve(folder, host or settings.media_host, settings.media_port if port is None else port, on_ready=ready, access_log=access_log)
