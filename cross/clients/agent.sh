#!/bin/bash
# Starts an agent, or with SERVE=hub a hub, on a fresh data folder and runs a command
# against its API, with the address and a key in API_URL and API_KEY (SANDBOX_KEY: a
# sandbox key).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

postern=${BIN:-bin/postern}
work=$(mktemp -d)
: >"$work/out"
pid=
finish() {
	[ -z "$pid" ] || { kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; } || true
	rm -rf "$work"
}
trap finish EXIT

key() { "$postern" --data "$work/data" --json keys create "$@" | sed -n 's/.*"token": "\(.*\)".*/\1/p'; }
API_KEY=$(key conformance)
SANDBOX_KEY=$(key sandbox --sandbox)
[ -z "${AGENT_PREPARE:-}" ] || "$AGENT_PREPARE" "$work/data"
${AGENT_CPUS:+taskset -c "$AGENT_CPUS"} "$postern" --data "$work/data" "${SERVE:-run}" --set camera.source=none --set http.listen=127.0.0.1:0 \
	--set hub.listen=127.0.0.1:0 --set hub.http_listen=127.0.0.1:0 \
	--set api.rates.read=0 --set api.rates.write=0 --set api.rates.create=0 --set api.rates.biometrics=0 --set api.rates.pdf=0 \
	--set webhooks.allow_loopback=true ${AGENT_FLAGS:-} \
	>"$work/out" 2>"$work/log" &
pid=$!
for _ in $(seq 100); do
	url=$(sed -n 's|.*\(http://[0-9.:]*\)/.*|\1|p' "$work/out")
	[ -z "$url" ] || break
	kill -0 $pid 2>/dev/null || { cat "$work/log" >&2; exit 1; }
	sleep 0.2
done
[ -n "$url" ] || { echo 'the agent did not start' >&2; cat "$work/log" >&2; exit 1; }
export FACES=${FACES:-$PWD/.cache/faces} CLIENTS_CACHE=${CLIENTS_CACHE:-$PWD/.cache/clients}
export API_URL=$url AGENT_PID=$pid API_KEY SANDBOX_KEY DATA=$work/data NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

status=0
"$@" || status=$?
if [ $status -ne 0 ] || grep -q 'level=ERROR' "$work/log"; then
	echo '--- the agent logged:' >&2
	grep -v 'level=INFO' "$work/log" | tail -n 40 >&2 || true
fi
exit $status
