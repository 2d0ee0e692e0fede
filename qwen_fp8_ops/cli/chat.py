"""``chat``: one question from the command line, or a conversation at the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.config.settings import OPTIONS

if TYPE_CHECKING:
    from qwen_fp8_ops.cli.chat_answer import Answer
    from qwen_fp8_ops.cli.target import Target
    from qwen_fp8_ops.client.answers import Delta
    from qwen_fp8_ops.client.media_types import Kind
    from qwen_fp8_ops.client.messages import Part


def setting(key: str) -> Callable[[str], object]:
    """An option's type: the values that a key of config.env may have."""
    kind = OPTIONS[key].kind

    def parse(text: str) -> object:
        try:
            return kind.parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}; allowed is {kind.allowed()}.") from None

    return parse


@click.command(
    epilog="Examples:\n\n\b\n"
    "  qwen-fp8 chat 'What is this?' --image cat.png\n"
    "  qwen-fp8 chat 'What happens here?' --video clip.mp4 --no-thinking\n"
    "  qwen-fp8 chat - < question.txt > answer.txt\n"
    "  qwen-fp8 chat --json 'Say yes' | jq -r .answer\n"
    "  qwen-fp8 chat                                          (a conversation)"
)
@click.argument("prompt", required=False)
@click.option("--image", "images", multiple=True, metavar="PATH|URL", help="Show an image; may be repeated.")
@click.option("--video", "videos", multiple=True, metavar="PATH|URL", help="Show a video; may be repeated.")
@click.option("--system", metavar="TEXT", help="Say first how it is to answer.")
@click.option("--stream/--no-stream", default=True, help="Show the answer as it comes, or when it is complete.")
@click.option("--no-thinking", "hide_thinking", is_flag=True, help="Hide the thinking, which is else shown dim on a terminal.")
@click.option("--max-tokens", type=setting("MAX_TOKENS"), metavar="N", help="Longest answer, thinking included.")
@click.option("--temperature", type=setting("TEMPERATURE"), metavar="X", help="0 is always the same answer.")
@click.option("--top-p", type=setting("TOP_P"), metavar="X", help="Share of likely tokens to choose from.")
@click.option("--seed", type=int, metavar="N", help="Make chance repeatable.")
@click.option("--model", metavar="NAME", help="Ask for this model; default: the service's own.")
@click.option("--server-url", metavar="URL", help="Ask this API instead of the service of this folder; its key may be in OPENAI_API_KEY.")
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE", help="Use the first key of this file.")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(0.1, 86_400), default=900.0, show_default=True, help="Longest silence, in seconds.")
@click.option("--wait", is_flag=True, help="If the service is still starting, wait until it serves.")
@shared_options
def chat(call: Call, /, prompt: str | None, images: tuple[str, ...], videos: tuple[str, ...], **options: Any) -> None:
    """Ask the model. Without PROMPT, at a terminal, a conversation begins; PROMPT - is read from standard input.

    The answer goes to stdout. Files are sent along, or fetched by the engine when they lie under the media server's root.
    """
    from qwen_fp8_ops.cli.chat_answer import as_json, get_answer, notes
    from qwen_fp8_ops.cli.chat_screen import Screen
    from qwen_fp8_ops.cli.chat_session import Session
    from qwen_fp8_ops.client.api import Api
    from qwen_fp8_ops.client.messages import media_part, system_message, user_message
    from qwen_fp8_ops.client.request import Limits

    text = _prompt(prompt, may_talk=not call.speak_json)
    target = _target(call, options)

    def attach(source: str, kind: Kind) -> Part:
        return media_part(os.path.expanduser(source), kind, server=target.media, limit_bytes=target.body_limit_bytes)

    media = [attach(source, "image") for source in images] + [attach(source, "video") for source in videos]
    system = [system_message(options["system"])] if options["system"] else []
    sampling = {name: options[name] for name in ("max_tokens", "temperature", "top_p", "seed")}
    limits = Limits(read_seconds=options["timeout_seconds"])
    show_thinking = not options["hide_thinking"]

    with Api(target.url, model=options["model"] or target.model, key=target.key, limits=limits) as api:

        def ask(messages: Sequence[Part], show: Callable[[Delta], None]) -> Answer:
            return get_answer(api, messages, sampling, show, streamed=options["stream"])

        def tell(answer: Answer) -> None:
            for note in notes(answer, verbose=call.verbose):
                call.say(note)

        if text is None:
            Session(ask, attach, tell, call.say, system=system, media=media, show_thinking=show_thinking).run()
        elif call.speak_json:
            answer = ask([*system, user_message(text, media)], lambda delta: None)
            call.give(as_json(answer, show_thinking=show_thinking), "")
        else:
            with closing(Screen(show_thinking=show_thinking)) as screen:
                answer = ask([*system, user_message(text, media)], screen.show)
            tell(answer)


def _prompt(prompt: str | None, *, may_talk: bool) -> str | None:
    """The question; None when there is none and somebody sits at a terminal to ask some."""
    stdin: TextIO | None = sys.stdin  # None when the caller closed it
    if prompt == "-" and stdin is not None:
        try:
            prompt = stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise click.UsageError(f"Standard input is not UTF-8 text (byte {error.start}).") from None
        if not prompt.strip():
            raise click.UsageError("There is no question on standard input.")
        return prompt.rstrip("\n")
    if prompt is None:
        if may_talk and stdin is not None and stdin.isatty() and sys.stdout.isatty():
            return None
        raise click.UsageError("There is no question. Give it as an argument, or give - and write it to standard input.")
    if not prompt.strip():
        raise click.UsageError("The question is empty.")
    return prompt


def _target(call: Call, options: dict[str, Any]) -> Target:
    from qwen_fp8_ops.cli.target import given_target, own_target

    if options["server_url"] is None:
        return own_target(call.paths, options["key_file"], wait=options["wait"], say=call.say)
    if options["wait"]:
        raise click.UsageError("--wait is for the service of this folder; how --server-url is doing is not known.")
    return given_target(options["server_url"], options["key_file"], os.environ)
