"""The status for a person: the state first, then where to connect, then what it is doing, then what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.gpu_text import render_gpus
from qwen_fp8_ops.report.screen import Screen
from qwen_fp8_ops.report.words import duration, gib, load_line, own_command

LABEL_WIDTH = 10
INDENT = 2


def render_status(status: dict[str, Any], screen: Screen = Screen()) -> str:  # noqa: B008 - it never changes
    lines = [_headline(status)]
    rows: list[tuple[str, str]] = []
    if status["load"]:
        rows.append(("loading", load_line(status["load"])))
    if status["state"] not in ("stopped", "failed", "gave-up"):
        rows += _places(status)
    if status["engine"]:
        rows.append(("requests", _requests(status["engine"])))
    if status["memory"]:
        rows.append(("memory", _memory(status["memory"])))
    if status["processes"]:
        rows.append(("processes", _processes(status["processes"])))
    if status["change"] and not status["change"]["taken_back"]:
        rows.append(("changed", _change(status["change"])))
    if status["slurm"]:
        rows.append(("SLURM", _slurm(status["slurm"])))
    lines += [f"  {label:<{LABEL_WIDTH}}{text}" for label, text in rows]
    inner = replace(screen, width=screen.width - INDENT)
    lines += [f"{'':<{INDENT}}{line}" for line in render_gpus(status, inner)]
    for problem in [status["error"], *status["problems"]]:
        if problem and problem["code"] == "no-gpus":
            lines.append(f"  {'GPUs':<{LABEL_WIDTH}}none: {problem['message']}")
        elif problem:
            lines += [f"{'':<{INDENT}}{line}" for line in problem_lines(problem)]
    return "\n".join(lines)


def problem_lines(problem: dict[str, str]) -> list[str]:
    """What is wrong, and beneath it what to do."""
    return [f"{'!':<{LABEL_WIDTH}}{problem['message']}", *(f"{'':<{LABEL_WIDTH}}  {line}" for line in problem["fix"].splitlines())]


def _headline(status: dict[str, Any]) -> str:
    words = [status["model"] or "qwen-fp8", status["state"].upper()]
    if status["since"]:
        words.append(f"for {duration(clock.seconds_since(status['since']))}")
    if status["profile"]:
        words.append(f"(profile {status['profile']})")
    if status["restarts"]:
        words.append(f"- {status['restarts']} restart{'s' if status['restarts'] > 1 else ''}")
    return " ".join(words)


def _places(status: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("API", f"{engine['url']}   {engine['name']}: {engine['state']}" + (f", pid {engine['pid']}" if engine["pid"] else "")) for engine in status["engines"]
    ]
    if status["media"]:
        rows.append(("media", f"{status['media']['url']}   {status['media']['state']}, serves {status['media']['root']}"))
    return rows


def _requests(engine: dict[str, Any]) -> str:
    text = f"{engine['running']} running, {engine['waiting']} waiting; KV cache {engine['kv_cache_usage']:.1%} used"
    text += f"; {engine['prompt_tokens_per_second']:g} prompt + {engine['generation_tokens_per_second']:g} new tokens/s"
    if engine["ttft_seconds_p50"] is not None:
        text += f"; TTFT {engine['ttft_seconds_p50'] * 1000:.0f} ms"
    if engine["itl_seconds_p50"] is not None:
        text += f", ITL {engine['itl_seconds_p50'] * 1000:.0f} ms"
    return text


def _memory(memory: dict[str, Any]) -> str:
    text = f"per rank: weights {gib(memory['weights_bytes_per_rank'])}, KV cache {gib(memory['kv_cache_bytes_per_rank'])}"
    if memory["kv_cache_tokens"] is not None:
        text += f"; {memory['kv_cache_tokens']:,} tokens"
    if memory["max_concurrency"]:
        text += f" = {memory['max_concurrency']:g} requests of full length"
    return text


def _processes(processes: list[dict[str, Any]]) -> str:
    total = sum(entry["rss_bytes"] for entry in processes)
    return f"{len(processes)}, {gib(total)} of host memory"


def _change(change: dict[str, Any]) -> str:
    """What the last restart changed; one that changed nothing is told as well."""
    texts = [f"{key}={text['to'] or 'empty'} (was {text['from'] or 'empty'})" for key, text in change["settings"].items()]
    return f"{', '.join(texts) or 'nothing'}, restarted {duration(clock.seconds_since(change['at']))} ago"


def _slurm(slurm: dict[str, Any]) -> str:
    left = f", {duration(slurm['seconds_left'])} left" if slurm["seconds_left"] is not None else ""
    return f"job {slurm['job_id']} on {slurm['node'] or '?'}{left}"


def render_ready(snapshot: dict[str, Any], seconds: float) -> str:
    """What a start says when it is done: where to connect and a line to paste."""
    url, model, qwen_fp8 = snapshot["url"], snapshot["model"], own_command()
    key = "  -H 'Authorization: Bearer KEY' \\\n" if snapshot.get("needs_key") else ""
    return (
        f"READY after {duration(seconds)}\n"
        f"  API    {url}   (model {model})\n"
        f"  media  {snapshot['media']['url']}   serves {snapshot['media']['root']}\n"
        f"Try it:\n"
        f"  curl {url}/chat/completions -H 'Content-Type: application/json' \\\n{key}"
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'\n'
        f"  {qwen_fp8} chat 'Hello'\n  {qwen_fp8} status\n  ./stop_service.sh"
    )
