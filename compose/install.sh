#!/bin/sh
# Make or refresh the Python environment: install.sh [run|dev] [DIRECTORY]
#
# `run` is what `carillon up` needs; `dev` adds what the tests and checks need. The engine is vLLM's CUDA build where
# nvidia-smi finds a card, its CPU build elsewhere; CARILLON_BUILD=cpu|gpu decides otherwise. pip installs exactly what
# compose/lock says, by its own configuration (indexes, certificates), and nothing is compiled: a package that comes as
# source only is an error that names it.
set -eu

kind=${1:-run}
venv=${2:-.venv}
cd "$(dirname "$0")/.."
lock=compose/lock

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

install() { "$venv/bin/python" -m pip --disable-pip-version-check install --only-binary :all: --no-compile "$@"; }

# One package of a lock, with the hashes of its files: install_locked NAME LOCK
install_locked() {
    sed -n "/^$1==/,/[^\\\\]\$/p" "$lock/$2.txt" >"$venv/$1.txt"
    install --quiet --no-deps --requirement "$venv/$1.txt"
}

# Without CUDA: from the indexes that pip has, else from PyTorch's own, which uv knows. The package index has the build
# with CUDA alone, which runs on a CPU too and is taken where nothing else is in reach.
install_torch() {
    torch=$(grep -o '^torch==[^ ]*' $lock/cpu.txt)
    have=$("$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' 2>/dev/null || true)
    [ "${have%%+*}" != "$torch" ] || return 0
    if install --dry-run --quiet --no-deps "$torch+cpu" >/dev/null 2>&1; then
        install --no-deps "$torch+cpu"
        return
    fi
    if [ -z "${PIP_NO_INDEX:-}" ]; then
        say "$torch for the CPU comes from PyTorch's own index"
        install_locked uv dev
        "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --torch-backend cpu "$torch" && return
        say "that index is out of reach (see above); torch and its CUDA libraries, which are never used here, are 2.7 GB"
    fi
    sed -e '/--hash=/d' -e 's/ *\\$//' $lock/gpu.txt >"$venv/versions.txt" # pip takes no hashes for what it finds itself
    install --constraint "$venv/versions.txt" "$torch"
}

python=$(find_python) || fail "Python 3.11, 3.12 or 3.13 is needed: sudo apt-get install python3, or set PYTHON=/path/to/python3.11"

build=${CARILLON_BUILD:-}
if [ -z "$build" ]; then
    if nvidia-smi -L >/dev/null 2>&1; then build=gpu; else build=cpu; fi
fi
case $build in
    gpu)
        size="4.2 GB"
        # Triton compiles a stub against Python.h at its first kernel: when the engine runs, not here.
        { command -v gcc || command -v cc || command -v clang; } >/dev/null 2>&1 &&
            "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' ||
            say "on a GPU host a C compiler and Python's headers are needed: sudo apt-get install gcc python3-dev" >&2
        ;;
    cpu)
        size="0.7 GB"
        "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
            fail "vLLM's CPU build needs libnuma.so.1: sudo apt-get install libnuma1"
        ;;
    *) fail "CARILLON_BUILD is '$build'; it can be cpu or gpu" ;;
esac

say "environment $venv: $("$python" --version), vLLM for $build; a first installation downloads $size"
# An environment whose Python is gone, or that has no pip, is made anew.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" ||
    fail "this Python makes no environments: sudo apt-get install python3-venv, then make clean"

set -- --requirement $lock/$build.txt
[ "$kind" = run ] || set -- "$@" --requirement $lock/dev.txt
install_locked pip $build # Debian's takes three times as long over a lock
[ "$build" = gpu ] || install_torch
install --no-deps "$@"
install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m app.platform.native_libraries || fail "environment $venv does not work on this machine (see above)"
say "environment $venv is ready"
