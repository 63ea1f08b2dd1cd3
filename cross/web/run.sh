#!/bin/bash
# Tests of the pages in a real headless Chromium: "make web". What is needed beside the
# agent is fetched into .cache/web, and the browser comes from the distribution.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=$PWD/.cache/web film=$PWD/.cache/sample/feed.avi
mkdir -p "$cache" .cache/sample
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
for tool in npm node; do
	command -v $tool >/dev/null || { echo "$tool is missing: apt-get install nodejs npm" >&2; exit 1; }
done
[ -n "$CHROMIUM" ] || { echo 'chromium is missing: apt-get install chromium' >&2; exit 1; }
stamp=$(sha256sum <cross/web/package-lock.json)
if [ "$(cat "$cache/stamp" 2>/dev/null)" != "$stamp" ]; then
	cp cross/web/package.json cross/web/package-lock.json "$cache/"
	(cd "$cache" && npm ci --silent --ignore-scripts --no-audit --no-fund)
	echo "$stamp" >"$cache/stamp"
fi
[ -f "$film" ] || bin/postern camera sample --faces .cache/faces --out "$film"

SITE_PORT=$(node -e 's=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
export SITE_PORT CHROMIUM FILM=$film WEB_CACHE=$cache FACES=$PWD/.cache/faces
read -ra more <<<"${ARGS:-}"
AGENT_FLAGS="--set hosted.origins=http://127.0.0.1:$SITE_PORT ${AGENT_FLAGS:-}" cross/clients/agent.sh \
	node --test --test-concurrency=1 "${more[@]}" cross/web/hosted.mjs
