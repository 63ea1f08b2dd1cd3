#!/bin/bash
# Prints the folder with LiteRT's library and licence for a CPU (x86_64, aarch64), after
# getting what is missing: set-up gets this machine's only.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
log=$cache/litert.log
cpu=${1:-$(uname -m)}

pinned() {
	local name=$1_$cpu
	[ -n "${!name:-}" ] || fail "LiteRT $litert_version does not come for $cpu"
	echo "${!name}"
}

dir=$cache/litert
[ "$cpu" = "$(uname -m)" ] || dir=$cache/litert-$cpu
want=$(pinned litert_library)
right() { [ -f "$dir/libLiteRt.so" ] && [ "$(sha256 "$dir/libLiteRt.so")" = "$want" ]; }

if ! right; then
	part=$dir.part
	rm -rf "$part"
	mkdir -p "$part" "$dir"
	printf '%s==%s --hash=sha256:%s\n' $litert_package $litert_version "$(pinned litert_wheel)" >"$part/wanted.txt"
	"$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
		--platform "${litert_platform}_$cpu" --python-version 311 --dest "$part" -r "$part/wanted.txt" </dev/null 2>>"$log" ||
		fail "pip cannot download $litert_package $litert_version for $cpu" 'see .cache/litert.log; is the network there?'
	"$PYTHON" -m zipfile -e "$part"/*.whl "$part/wheel"
	mv "$part/wheel/ai_edge_litert/libLiteRt.so" "$part"/wheel/*.dist-info/licenses/* "$dir/"
	rm -rf "$part"
	right || fail "libLiteRt.so out of $litert_package for $cpu has SHA-256 $(sha256 "$dir/libLiteRt.so"), expected $want; it is not used"
fi
echo "$dir"
