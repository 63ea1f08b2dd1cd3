#!/bin/bash
# Measures postern and its peers on the same pictures of one folder of faces, in one
# run: run.sh --data DIR [--pairs N]. The peers live in .cache/peers, in a Python and a
# Node environment of their own; nothing of postern depends on them.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/models/peers
env=$root/.cache/peers
mkdir -p "$env"

if ! cmp -s "$here/requirements.txt" "$env/installed.txt"; then
	echo 'installing the Python peers into .cache/peers'
	python3 -m venv "$env/venv"
	"$env/venv/bin/pip" install --quiet --only-binary=:all: --disable-pip-version-check -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$env/installed.txt"
fi
if command -v npm >/dev/null; then
	if ! cmp -s "$here/package.json" "$env/node/package.json"; then
		echo 'installing the Node peer into .cache/peers'
		mkdir -p "$env/node"
		cp "$here/package.json" "$env/node/package.json"
		(cd "$env/node" && npm install --ignore-scripts --no-audit --no-fund --silent)
	fi
	cp "$here/human.mjs" "$env/node/human.mjs"
else
	echo 'npm is not here: @vladmandic/human is left out'
fi
exec "$env/venv/bin/python" "$here/peers.py" "$@"
