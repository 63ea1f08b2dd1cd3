#!/bin/bash
# Conformance: a real agent, driven by clients that others wrote (PyPI didit-sdk, npm
# @didit-protocol/mcp-server), by a property-based tester over /openapi.json, and by
# the examples of the documentation. Their packages live in .cache/clients, pinned.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=$PWD/.cache/clients
mkdir -p "$cache"
command -v npm >/dev/null || { echo 'npm is missing: apt-get install npm' >&2; exit 1; }

# Packages are fetched again when their pins change.
stamp=$(cat cross/clients/requirements.txt cross/clients/package-lock.json | sha256sum)
if [ "$(cat "$cache/stamp" 2>/dev/null)" != "$stamp" ]; then
	rm -rf "$cache/venv" "$cache/python" "$cache/node_modules"
	python3 -m pip --quiet --disable-pip-version-check install --target "$cache/python" -r cross/clients/requirements.txt
	cp cross/clients/package.json cross/clients/package-lock.json "$cache/"
	(cd "$cache" && npm ci --silent --ignore-scripts --no-audit --no-fund)
	echo "$stamp" >"$cache/stamp"
fi

export CLIENTS_CACHE=$cache FACES=$PWD/.cache/faces PATH=$cache/python/bin:$PATH PYTHONPATH=$cache/python:cross/clients PYTHONDONTWRITEBYTECODE=1
failed=()
run() { # name, command...
	local name=$1 from=$SECONDS
	shift
	echo "== $name"
	cross/clients/agent.sh "$@" || failed+=("$name")
	echo "-- $name took $((SECONDS - from)) s"
}
run mcp-server node cross/clients/mcp.mjs
[ ! -f cross/clients/sdk.py ] || run didit-sdk python3 cross/clients/sdk.py
# The hub serves the same API, also in a build without OpenCV.
echo '== a hub without OpenCV'
go build -tags nocamera -buildvcs=false -o .cache/postern-nocamera ./agent/cmd/postern
! ldd .cache/postern-nocamera | grep -q opencv || { echo 'it is linked with OpenCV' >&2; exit 1; }
SERVE=hub BIN=.cache/postern-nocamera run 'mcp-server at a hub' node cross/clients/mcp.mjs
SERVE=hub BIN=.cache/postern-nocamera run 'didit-sdk at a hub' python3 cross/clients/sdk.py
run schemathesis cross/clients/schema.sh
[ ! -f cross/clients/docs.py ] || run documentation python3 cross/clients/docs.py

if [ ${#failed[@]} -gt 0 ]; then
	echo "failed: ${failed[*]}" >&2
	exit 1
fi
echo 'all clients pass'
