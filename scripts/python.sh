# shellcheck shell=bash
# Sourced by the wrappers, which set `root`, the checkout. Leaves in `python` an interpreter that can run the project, and
# sets up .venv where that is needed. A set-up that is complete costs one short process, no Python.
: "${root:?set it to the checkout before sourcing this}"

set_up() { # EXTRA...: choose the interpreter; .venv has these extras afterwards
    if [[ -n ${QWEN_FP8_PYTHON:-} ]]; then
        use_site_python
        return
    fi
    if ! is_set_up "$@"; then
        python=$(find_python) || exit 2
        "$python" "$root/scripts/setup_venv.py" "${@/#/--extra=}"
    fi
    use_venv
}

is_set_up() { # EXTRA...: is .venv complete, of this checkout and of this pyproject.toml, with these extras? venv_setup/stamp.py wrote it
    local stamp=$root/.venv/.setup extras checkout extra
    [[ -x $root/.venv/bin/python && -r $stamp ]] || return 1
    { IFS= read -r extras && IFS= read -r checkout; } <"$stamp" || return 1
    [[ $extras == complete\ * && $checkout == "$root" && $(tail -n +3 -- "$stamp") == "$(<"$root/pyproject.toml")" ]] || return 1
    for extra; do
        [[ " $extras " == *" $extra "* ]] || return 1
    done
}

can_run() { # does .venv hold what the project needs to run, be its set-up of today or not?
    [[ -x $root/.venv/bin/python ]] && "$root/.venv/bin/python" "$root/scripts/check_python.py" 2>/dev/null
}

use_venv() {
    python=$root/.venv/bin/python
    export PYTHONPATH=$root # alone: a path that a module system set for another Python would shadow .venv
    unset PYTHONHOME
}

use_site_python() {
    python=$(command -v -- "$QWEN_FP8_PYTHON") || {
        printf 'Error: QWEN_FP8_PYTHON=%s is not a program\n  Give the path of a Python 3.11 or newer, or unset it to use .venv.\n' "$QWEN_FP8_PYTHON" >&2
        exit 2
    }
    "$python" "$root/scripts/check_python.py" || exit 2
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    if command -v python3; then return; fi # too old, which setup_venv.py can say better
    echo "Error: Python 3.11 or newer is needed, and there is no python3 on PATH" >&2
    printf '  Put one there (module load, conda activate, apt-get install python3 python3-venv), or name it: QWEN_FP8_PYTHON=/path/to/python\n' >&2
    return 1
}

engine_for() { # ARGUMENT...: which engine a start with these arguments runs on: cpu, gpu, or core where there is none
    local word previous=
    for word; do
        case $word in -h | --help) echo core && return ;; esac
    done
    for word; do
        if [[ $word == --profile=demo || "$previous $word" == "--profile demo" ]]; then
            echo cpu
            return
        fi
        previous=$word
    done
    if command -v nvidia-smi >/dev/null || [[ -e /proc/driver/nvidia/version ]]; then echo gpu; else echo core; fi
}
