#!/bin/bash
# Says all that gofmt, go vet, staticcheck and (where installed) shellcheck find.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
bad=0

unformatted=$(cross/gofiles.sh | xargs gofmt -l) || bad=1
if [ -n "$unformatted" ]; then
	echo "not gofmt'ed (make fmt does it):"
	echo "$unformatted"
	bad=1
fi
go vet ./... || bad=1
go tool staticcheck ./... || bad=1
if command -v shellcheck >/dev/null; then
	shellcheck -x cross/*.sh models/build/*.sh .ci/run || bad=1
else
	echo 'shellcheck is not installed: the scripts were not checked'
fi
[ $bad -eq 0 ] && echo 'lint: nothing to say'
exit $bad
