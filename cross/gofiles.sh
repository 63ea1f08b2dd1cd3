#!/bin/sh
# Lists the project's Go files, whatever their build tags.
set -eu
cd "$(dirname "$0")/.."
find . -path './.*' -prune -o -name '*.go' -print | sort
