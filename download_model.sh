#!/usr/bin/env bash
# Fetch the model's weights, go on where an earlier run stopped, verify them. Needs no GPU; the first run sets up .venv.
#   ./download_model.sh ...      every option: ./download_model.sh --help
set -euo pipefail
root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/python.sh
source "$root/scripts/python.sh"
set_up core
exec "$python" -P -m qwen_fp8_ops download "$@"
