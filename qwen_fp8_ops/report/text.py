"""The status for a person: the state first, then where to connect, then what it is doing, then what is wrong."""

from __future__ import annotations

from typing import Any

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.words import duration, gib, load_line, own_command

LABEL_WIDTH = 10
BAR_CELLS = 24


def render_status(status: dict[str, Any]) -> str:
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
    rows += [(f"GPU {gpu['index']}", _gpu(gpu)) for gpu in status["gpus"]]
    if status["slurm"]:
        rows.append(("SLURM", _slurm(status["slurm"])))
    lines += [f"  {label:<{LABEL_WIDTH}}{text}" for label, text in rows]
    for problem in [status["error"], *status["problems"]]:
        if problem and problem["code"] == "no-gpus":
            lines.append(f"  {'GPUs':<{LABEL_WIDTH}}none: {problem['message']}")
        elif problem:
            lines.append(f"  {'!':<{LABEL_WIDTH}}{problem['message']}")
            lines += [f"  {'':<{LABEL_WIDTH}}  {line}" for line in problem["fix"].splitlines()]
    return "\n".join(lines)


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
    rows = [("API", f"{engine['url']}   {engine['name']}: {engine['state']}" + (f", pid {engine['pid']}" if engine["pid"] else "")) for engine in status["engines"]]
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


def _gpu(gpu: dict[str, Any]) -> str:
    total, used = gpu["memory_total_bytes"], gpu["memory_used_bytes"]
    if not total or used is None:
        return f"{gpu['name'] or '?'}  {'; '.join(gpu['problems']) or 'no memory reading'}"
    filled = round(used / total * BAR_CELLS)
    text = f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}] {gib(used)} of {gib(total)}"
    text += f"; ours {gib(gpu['own_bytes'])}" + (f" (rank {', '.join(map(str, gpu['ranks']))})" if gpu["ranks"] else "")
    if gpu["foreign_bytes"]:
        text += f", others {gib(gpu['foreign_bytes'])}"
    if gpu["utilization_percent"] is not None:
        text += f"; {gpu['utilization_percent']} %"
    return text + "".join(f"; ! {problem}" for problem in gpu["problems"])


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
        f"    -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n"
        f"  {qwen_fp8} chat 'Hello'\n  {qwen_fp8} status\n  ./stop_service.sh"
    )
