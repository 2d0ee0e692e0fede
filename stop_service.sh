#!/usr/bin/env bash
# Drain and stop the service, and prove that it is gone. Installs nothing that is not needed for that.
#   ./stop_service.sh ...      every option: ./stop_service.sh --help
set -euo pipefail
root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/python.sh
source "$root/scripts/python.sh"
if [[ -z ${QWEN_FP8_PYTHON:-} && ! -e $root/.venv ]]; then
    echo "Nothing can be running from here: $root has no .venv, so nothing was ever started from it." >&2
    if [[ " $* " == *" --json "* ]]; then echo '{"schema": 1, "ok": true, "state": "stopped", "error": null}'; fi
    exit 0
fi
# As it is, even if pyproject.toml has changed since: an engine that runs from .venv must not lose its files now.
if [[ -z ${QWEN_FP8_PYTHON:-} ]] && can_run; then use_venv; else set_up core; fi
exec "$python" -P -m qwen_fp8_ops stop "$@"
