#!/bin/sh
# Fetch everything an environment needs as wheels, for a machine without internet: wheels.sh DIRECTORY [gpu|cpu]
#
# Run it where there is internet, with the Python version and processor of that machine (PYTHON=/path/to/python3.12).
# There, with the directory and this checkout copied, and no index in reach:
#
#     PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/DIRECTORY CARILLON_BUILD=gpu compose/install.sh run
#
# The lists are compose/lock's; DIRECTORY/SHA256SUMS says what came. Nothing is compiled, here or there.
set -eu

directory=${1:?wheels.sh DIRECTORY [gpu|cpu]}
build=${2:-gpu}
lock=$(dirname "$0")/lock/$build.txt
[ -f "$lock" ] || { echo "carillon: the build is gpu or cpu, not '$build'" >&2; exit 1; }

fetch() {
    "${PYTHON:-python3}" -m pip --disable-pip-version-check download --quiet --only-binary :all: --dest "$directory" "$@"
}

# Torch without CUDA, as install.sh takes it: from pip's indexes, else the build with CUDA and the libraries it needs.
fetch_torch() {
    torch=$(grep -o '^torch==[^ ]*' "$lock")
    fetch --no-deps "$torch+cpu" 2>/dev/null && return
    echo "carillon: no index that pip has has $torch+cpu; torch with CUDA is 2.7 GB" >&2
    sed -e '/--hash=/d' -e 's/ *\\$//' "$(dirname "$lock")/gpu.txt" >"$directory/versions.txt"
    fetch --constraint "$directory/versions.txt" "$torch"
}

mkdir -p "$directory"
if [ "$build" = cpu ]; then
    fetch_torch
    sed '/^torch==/,/[^\\]$/d' "$lock" >"$directory/rest.txt"
    lock=$directory/rest.txt
fi
fetch --no-deps --requirement "$lock"
(cd "$directory" && sha256sum -- *.whl >SHA256SUMS)
echo "carillon: $(grep -c . "$directory/SHA256SUMS") wheels, $(du -sh "$directory" | cut -f1), in $directory"
