#!/bin/sh
# Known vulnerabilities in what the locks install, by the OSV database: audit.sh LOCK…
#
# Without that database in reach nothing is checked, which is said and is no failure: a check has to pass offline.
set -eu

venv=${VENV:-.venv}
service=${OSV_URL:-https://api.osv.dev/v1/query}
audit="pip-audit==2.10.1"

if ! "$venv/bin/python" - "$service" <<'PYTHON'
import sys, urllib.request

question = urllib.request.Request(sys.argv[1], b'{"package": {"name": "pip", "ecosystem": "PyPI"}}')
try:
    urllib.request.urlopen(question, timeout=5).read(1)
except OSError:
    sys.exit(1)
PYTHON
then
    echo "carillon: vulnerabilities not checked: $service is not in reach"
    exit 0
fi

for lock; do set -- "$@" --requirement "$lock"; shift; done
exec "$venv/bin/uv" tool run --from "$audit" pip-audit --vulnerability-service osv --disable-pip \
    --progress-spinner off "$@"
