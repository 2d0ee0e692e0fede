"""What can go wrong, told once.

    OpsError                 anything we can explain: code, message, fix
    ├── ConfigError          config.env, a profile, the environment or a flag is wrong      exit 2
    ├── NotRunningError      the service is not there, or not ready yet                      exit 3
    ├── PreflightError       something checked before the start refuses it                   exit 4
    ├── GaveUpError          retries are used up, or retrying can never help                 exit 5
    └── TimedOutError        a limit in seconds passed                                       exit 6

Only ``qwen_fp8_ops.cli`` prints these and exits. Anything else that rises is a bug and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a shell script can react to; each code asks for a different reaction."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    PREFLIGHT = 4
    GAVE_UP = 5
    TIMED_OUT = 6
    INTERRUPTED = 130


class OpsError(Exception):
    """A failure with a stable code for programs, a message for people and the next step.

    Args:
        message: what happened, naming the value that caused it; without the word "Error".
        fix: the next command or edit to try; may span lines; empty when there is none.
        code: stable kebab-case identifier that scripts may test for.
    """

    exit_code = ExitCode.FAILED
    default_code = "failed"

    def __init__(self, message: str, *, fix: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.code = code or self.default_code

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "fix": self.fix}


class ConfigError(OpsError):
    exit_code = ExitCode.USAGE
    default_code = "bad-configuration"


class NotRunningError(OpsError):
    exit_code = ExitCode.NOT_RUNNING
    default_code = "not-running"


class PreflightError(OpsError):
    exit_code = ExitCode.PREFLIGHT
    default_code = "preflight-refused"


class GaveUpError(OpsError):
    exit_code = ExitCode.GAVE_UP
    default_code = "gave-up"


class TimedOutError(OpsError):
    exit_code = ExitCode.TIMED_OUT
    default_code = "timed-out"
