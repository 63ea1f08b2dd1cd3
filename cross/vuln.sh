#!/bin/bash
# Looks for known vulnerabilities in what is linked into the programs: govulncheck with
# the Go vulnerability database, at VULNDB. Where the database cannot be reached that is
# said, and the nearest thing is done: no module in use may be a version that its own
# authors have retracted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
db=${VULNDB:-https://vuln.go.dev}
status=0
out=$(go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -db "$db" ./... 2>&1) || status=$?
case "$out" in
*"fetching vulnerabilities"* | *"proxyconnect"*)
	echo "vuln: THE DATABASE AT $db CANNOT BE REACHED, known vulnerabilities were NOT looked for"
	echo "vuln: (${out##*fetching vulnerabilities: })"
	echo 'vuln: VULNDB=file:///folder or another address names a copy of it'
	;;
*)
	echo "$out"
	exit $status
	;;
esac

modules=$(go list -deps -test -f '{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}' ./... | sort -u)
bad=0 looked=0
for module in $modules; do
	if ! answer=$(go list -m -u -retracted -f '{{.Version}} {{join .Retracted "; "}}' "$module" 2>/dev/null); then
		echo "vuln: retractions of $module cannot be read"
		continue
	fi
	looked=$((looked + 1))
	if [ -n "${answer#* }" ]; then
		echo "vuln: $module $answer: retracted"
		bad=1
	fi
done
echo "vuln: $looked modules looked at for retractions"
exit $bad
