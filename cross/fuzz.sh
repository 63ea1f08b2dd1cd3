#!/bin/bash
# Runs every fuzz target for a while: fuzz.sh [TIME]. Finding none is an error, for
# a fuzz run that checks nothing should not pass.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
time=${1:-10s}
count=0

folders=$(grep -rlE --include='*_test.go' '^func Fuzz' agent camera cross inference models sync 2>/dev/null | xargs -r dirname | sort -u) || true
for folder in $folders; do
	targets=$(go test -list '^Fuzz' "./$folder" | grep '^Fuzz') || true
	for target in $targets; do
		echo "fuzz ./$folder $target for $time"
		go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" "./$folder"
		count=$((count + 1))
	done
done
[ "$count" -gt 0 ] || { echo 'fuzz.sh: no fuzz target found' >&2; exit 1; }
echo "fuzz: $count targets"
