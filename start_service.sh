#!/usr/bin/env bash
# Start the service in this terminal; Ctrl+C stops it. The first run sets up .venv.
#   ./start_service.sh [--profile demo] [--detach] ...      every option: ./start_service.sh --help
set -euo pipefail
root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/python.sh
source "$root/scripts/python.sh"
set_up "$(engine_for "$@")"
exec "$python" -P -m qwen_fp8_ops start "$@"
