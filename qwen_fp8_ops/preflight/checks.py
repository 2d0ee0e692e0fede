"""What must hold before a start: the list of checks, from the machine up to the service, and the one that runs them all.

Each check only looks (the one of the clock makes an empty file and removes it), never raises, and tells what it saw; the nouns
beside this file hold them. ``CODES`` is what scripts and
``start --force CODE`` may rely on.
"""

from __future__ import annotations

import difflib
import re

from qwen_fp8_ops.preflight.access import check_access
from qwen_fp8_ops.preflight.allocation import check_allocation, check_granted, check_time
from qwen_fp8_ops.preflight.caches import check_caches
from qwen_fp8_ops.preflight.check import Check
from qwen_fp8_ops.preflight.engine import check_driver, check_engine, check_engine_version, check_torch
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.gpu_health import check_gpu_health, check_lost_gpus, check_nvlink
from qwen_fp8_ops.preflight.gpu_memory import check_free_memory, check_gpu_processes
from qwen_fp8_ops.preflight.gpus import check_gpu_kind, check_gpus, check_mig
from qwen_fp8_ops.preflight.host import check_host_memory, check_leftovers, check_limits, check_shared_memory
from qwen_fp8_ops.preflight.memory import check_memory
from qwen_fp8_ops.preflight.network import check_ports, media_is_served
from qwen_fp8_ops.preflight.settings import check_settings
from qwen_fp8_ops.preflight.storage import check_clock, check_folders, check_media_root
from qwen_fp8_ops.preflight.subject import Subject
from qwen_fp8_ops.preflight.weight_cache import check_weight_cache
from qwen_fp8_ops.preflight.weights import check_model, check_weights

CHECKS: tuple[Check, ...] = (
    check_gpus,
    check_lost_gpus,
    check_gpu_kind,
    check_mig,
    check_gpu_health,
    check_nvlink,
    check_free_memory,
    check_gpu_processes,
    check_allocation,
    check_granted,
    check_time,
    check_host_memory,
    check_shared_memory,
    check_limits,
    check_leftovers,
    check_engine,
    check_engine_version,
    check_torch,
    check_driver,
    check_model,
    check_weights,
    check_memory,
    check_settings,
    check_weight_cache,
    check_folders,
    check_media_root,
    check_caches,
    check_clock,
    check_ports,
    check_access,
)

CODES: dict[str, str] = {code: about for check in CHECKS for code, about in check.codes.items()}
"""Every code, and what it is about."""

GROUPS: dict[str, str] = {code: check.group for check in CHECKS for code in check.codes}

FURTHER_ENGINE = re.compile(r"engine[0-9]+-port")


def run_checks(subject: Subject) -> tuple[Finding, ...]:
    """All of them, whatever the others found."""
    return tuple(finding for check in CHECKS for finding in check.findings(subject))


def is_known(code: str) -> bool:
    return code in CODES or FURTHER_ENGINE.fullmatch(code) is not None


def group_of(code: str) -> str:
    return GROUPS.get(code, GROUPS["engine0-port"])


def nearest_codes(code: str) -> list[str]:
    """What could have been meant, best first."""
    word = code.strip().lower().replace("_", "-")
    close = difflib.get_close_matches(word, CODES, n=3, cutoff=0.6)
    return close or [known for known in CODES if word and (word in known or known in word)]


__all__ = [
    "CHECKS",
    "CODES",
    "Subject",
    "check_engine",
    "check_folders",
    "check_gpus",
    "group_of",
    "is_known",
    "media_is_served",
    "nearest_codes",
    "run_checks",
]
