"""``caption``: a caption for every image of a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.cli.batch_options import BatchOptions, batch_options, unicode_text
from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode

if TYPE_CHECKING:
    from qwen_fp8_ops.client.batch.folder import Folder
    from qwen_fp8_ops.client.media_types import Kind

STYLES = ("SIMPLE", "SHORT", "LONG")
KINDS: dict[str, tuple[Kind, ...]] = {"images": ("image",), "videos": ("video",), "all": ("image", "video")}


@click.command(
    epilog="Examples:\n\n\b\n"
    "  qwen-fp8 caption --dataset-path images\n"
    "  qwen-fp8 caption --dataset-path images --recursive --prompt-style SHORT --prompt-style LONG --max-tokens 2048\n"
    "  qwen-fp8 caption --dataset-path images --prompt 'What is written here?' --name signs --format jsonl\n"
    "  qwen-fp8 caption --dataset-path images --server-url http://node042:8000 --shard 2/4\n"
    "  qwen-fp8 caption --dataset-path images --model-name Qwen3-VL-4B-Instruct --merge"
)
@click.option("--dataset-path", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder that holds the images.")
@click.option("--prompt-style", "styles", type=click.Choice(STYLES, case_sensitive=False), multiple=True, help="May be repeated; default: SIMPLE.")
@click.option("--prompt", type=unicode_text, metavar="TEXT", help="Ask this instead; the result is called MODEL_custom, or see --name.")
@click.option("--prompt-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The same, from a file; - is standard input.")
@click.option("--name", metavar="NAME", help="Call the result MODEL_NAME instead of MODEL_STYLE.")
@click.option("--recursive", is_flag=True, help="Subfolders too; captions then go by path.")
@click.option("--pattern", "patterns", multiple=True, metavar="GLOB", help="Only names like this; may be repeated.")
@click.option("--media", type=click.Choice(tuple(KINDS)), default="images", show_default=True, help="What to caption.")
@batch_options(max_tokens=256)
@shared_options
def caption(call: Call, dataset_path: Path, batch: BatchOptions, **options: Any) -> int:
    """Write a caption for every image of a folder; an interrupted run goes on where it was.

    The result is OUTPUT/captions/MODEL/MODEL_STYLE.json.
    """
    from qwen_fp8_ops.cli.batch_run import Batch, as_json, as_text, exit_code, give, result_files
    from qwen_fp8_ops.client.batch.captions import publish_captions
    from qwen_fp8_ops.client.batch.folder import check_folder, readable
    from qwen_fp8_ops.client.batch.images import require_pillow
    from qwen_fp8_ops.client.batch.inputs import Selection
    from qwen_fp8_ops.client.batch.item import Recipe
    from qwen_fp8_ops.client.batch.publish import require_pyarrow
    from qwen_fp8_ops.outside.files import write_json

    asked = _prompts(options["styles"], options["prompt"], options["prompt_file"], options["name"])
    check_folder(dataset_path)
    require_pillow()
    if batch.format == "parquet":
        require_pyarrow()
    service = Batch(call, batch)
    values, code = [], ExitCode.DONE
    for name, prompt in asked.items():
        folder = _folder(dataset_path, prompt, options)
        model = service.folder_name
        files = result_files(batch, "captions", model, f"{model}_{name}")
        recipe = Recipe("caption", "" if batch.merge else service.model, prompt, sampling=batch.sampling(), max_pixels=batch.max_pixels)
        with service.run(folder, recipe, files) as finished:
            result = publish_captions(finished.journal, Selection(folder, batch.shard), files, batch.format)
            value = as_json(finished, files, name=name, result=readable(result))
            write_json(files.summary, {"schema": 1, **value})
            values.append(value)
            call.say(as_text(finished, files, f"captions ({name})", result))
        code = max(code, exit_code(finished))
        if finished.error is not None and not call.speak_json:
            raise finished.error
        if finished.error is not None or finished.tally.interrupted:
            break
    give(call, {"schema": 1, "ok": code is ExitCode.DONE, "runs": values, "error": values[-1]["error"]}, "\n".join(value["result"] for value in values))
    return code


def _prompts(styles: tuple[str, ...], prompt: str | None, prompt_file: Path | None, name: str | None) -> dict[str, str]:
    """What is asked, by the result's name."""
    from qwen_fp8_ops.client.batch.captions import PROMPTS
    from qwen_fp8_ops.client.batch.files import safe_name

    if sum(map(bool, (styles, prompt is not None, prompt_file is not None))) > 1:
        raise click.UsageError("Give one of --prompt-style, --prompt and --prompt-file.")
    if prompt_file is not None:
        prompt = _read(prompt_file)
    if prompt is not None:
        if not prompt.strip():
            raise click.UsageError("The prompt is empty.")
        return {safe_name(name or "custom"): prompt}
    chosen = tuple(dict.fromkeys(styles or ("SIMPLE",)))
    if name and len(chosen) > 1:
        raise click.UsageError("--name is for one result; several styles make several.")
    return {safe_name(name or style.lower()): PROMPTS[style] for style in chosen}


def _read(file: Path) -> str:
    try:
        return (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode().strip()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is not UTF-8 text (byte {error.start}).") from None


def _folder(root: Path, prompt: str, options: dict[str, Any]) -> Folder:
    """
    Raises:
        UsageError: nothing in it is to be captioned.
    """
    from qwen_fp8_ops.client.batch.folder import Folder

    folder = Folder(root, prompt, options["recursive"], options["patterns"], frozenset(KINDS[options["media"]]))
    if next(iter(folder), None) is None:
        deeper = Folder(root, prompt, True, options["patterns"], folder.kinds)
        hint = " Links to folders are not followed." if folder.recursive else " Its subfolders do: --recursive." if next(iter(deeper), None) else ""
        raise click.UsageError(f"{root} holds no {options['media'] if options['media'] != 'all' else 'images or videos'} to caption.{hint}")
    return folder
