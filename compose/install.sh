#!/bin/sh
# Make or refresh the Python environment: install.sh [run|dev] [DIRECTORY]
#
# `run` is what `carillon up` needs; `dev` adds what the tests and checks need. The engine is vLLM's CUDA build where
# nvidia-smi finds a card, its CPU build elsewhere; CARILLON_BUILD=cpu|gpu decides otherwise. Package indexes that pip
# is configured with are passed on to uv, which does not read pip's configuration.
set -eu

kind=${1:-run}
venv=${2:-.venv}
cd "$(dirname "$0")/.."

say() { printf '%s\n' "carillon: $*"; }
fail() { printf '%s\n' "carillon: $*" >&2; exit 1; }

find_python() {
    for candidate in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# uv itself: one that knows PyTorch's indexes, else from the package index by whichever means this Python has.
find_uv() {
    for candidate in uv .uv/bin/uv; do
        if "$candidate" pip install --help 2>/dev/null | grep -q -e --torch-backend; then
            command -v "$candidate"
            return
        fi
    done
    say "installing uv into .uv" >&2
    if "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip install --quiet --upgrade --target .uv uv >&2 && echo .uv/bin/uv && return
    fi
    if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv .uv >&2; then
        .uv/bin/python -m pip install --quiet --upgrade uv >&2 && echo .uv/bin/uv && return
    fi
    return 1
}

pip_setting() { # NAME: the environment's, else the configuration file's
    variable=PIP_$(echo "$1" | tr 'a-z-' 'A-Z_')
    eval "value=\${$variable:-}"
    if [ -z "$value" ] && "$python" -m pip --version >/dev/null 2>&1; then
        value=$("$python" -m pip config get "global.$1" 2>/dev/null || "$python" -m pip config get "install.$1" 2>/dev/null || true)
    fi
    echo "$value" | tr '\n' ' ' | sed 's/ *$//'
}

# pip considers every index at once and takes the best version; uv does so when told to.
adopt_pip_configuration() {
    find_links=$(pip_setting find-links | tr -s ' ' ',')
    index=$(pip_setting index-url)
    extra=$(pip_setting extra-index-url)
    certificates=$(pip_setting cert)
    [ -z "$find_links" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$find_links}"
    [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
    [ -z "$extra" ] || export UV_INDEX="${UV_INDEX:-$extra}" UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    [ -z "$certificates" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"
}

python=$(find_python) || fail "Python 3.11 or newer is needed: sudo apt-get install python3, or set PYTHON=/path/to/python3.11"
uv=$(find_uv) || fail "uv could not be installed (why stands above; if this Python has neither pip nor venv: sudo apt-get install python3-venv)"
adopt_pip_configuration

build=${CARILLON_BUILD:-}
if [ -z "$build" ]; then
    if nvidia-smi -L >/dev/null 2>&1; then build=gpu; else build=cpu; fi
fi
case $build in
    gpu)
        # Triton compiles a stub against Python.h at its first kernel: when the engine runs, not here.
        { command -v gcc || command -v cc || command -v clang; } >/dev/null 2>&1 &&
            "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' ||
            say "on a GPU host a C compiler and Python's headers are needed: sudo apt-get install gcc python3-dev" >&2
        # Without a card in sight, as in `docker build`, auto would mean the CPU's torch; PyPI's is the CUDA one.
        set --
        if [ -n "${UV_TORCH_BACKEND:-}" ] || nvidia-smi -L >/dev/null 2>&1; then
            set -- --torch-backend "${UV_TORCH_BACKEND:-auto}"
        fi
        ;;
    cpu)
        "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
            fail "vLLM's CPU build needs libnuma.so.1: sudo apt-get install libnuma1"
        set -- --override compose/cpu-overrides.txt
        # An index of one's own is where the CPU wheels are; without one, uv knows PyTorch's.
        [ -n "${UV_FIND_LINKS:-}${UV_INDEX:-}" ] || set -- "$@" --torch-backend "${UV_TORCH_BACKEND:-cpu}"
        ;;
    *) fail "CARILLON_BUILD is '$build'; it can be cpu or gpu" ;;
esac
[ "$kind" = run ] || set -- "$@" --group dev

say "environment $venv: $("$python" --version), vLLM for $build; a first installation downloads about 1 GB"
export UV_PYTHON_DOWNLOADS=never
# An environment whose Python is gone is made anew.
[ -x "$venv/bin/python" ] || UV_VENV_CLEAR=1 "$uv" venv --quiet --python "$python" "$venv"
"$uv" pip install --python "$venv/bin/python" "$@" --editable ".[$build]"
say "environment $venv is ready"
