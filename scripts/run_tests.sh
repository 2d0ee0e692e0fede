#!/usr/bin/env bash
# Every test, in two processes side by side: those that start the real engine need the cores, most of the others wait.
# run_tests.sh PYTHON [PYTEST ARGUMENTS]; with arguments one pytest is given them.
set -uo pipefail
python=$1
shift
if (($#)); then
    exec "$python" -m pytest "$@"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$python" -m pytest -m "engine and not slurm" > "$log" 2>&1 &
engine=$!
"$python" -m pytest -m "not engine or slurm"
others=$?
printf '\nThe tests that start the real engine:\n'
tail --lines=+1 --follow --pid="$engine" "$log"
wait "$engine"
exit $(($? || others))
