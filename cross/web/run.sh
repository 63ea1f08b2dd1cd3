#!/bin/bash
# Tests of the pages in a real headless Chromium: "make web". What is needed beside the
# agent is fetched into .cache/web, and the browser comes from the distribution. PARTS
# chooses among hosted and kiosk; PARTS=screens takes the pictures of docs/screens.
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

# A port for the site that embeds the page: the agent is told of its origin.
SITE_PORT=$(node -e 's=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
export SITE_PORT CHROMIUM FILM=$film WEB_CACHE=$cache FACES=$PWD/.cache/faces
read -ra more <<<"${ARGS:-}"
parts=${PARTS:-hosted kiosk}
failed=()
run() { # part of the tests, settings of its agent...
	local part=$1
	shift
	[[ " $parts " = *" $part "* ]] || return 0
	AGENT_FLAGS="$*" cross/clients/agent.sh node --test --test-concurrency=1 "${more[@]}" "cross/web/$part.mjs" || failed+=("$part")
}
if [ "$parts" = screens ]; then
	SCREENS=docs/screens AGENT_FLAGS="--set kiosk.attendant=reception --set kiosk.pin_pad=true --set identify.enabled=false" \
		cross/clients/agent.sh node cross/web/screens.mjs
	du -sh docs/screens
	exit
fi
run hosted --set "hosted.origins=http://127.0.0.1:$SITE_PORT"
# The kiosk's camera plays each fourth picture of the film in lock step: no frame is
# missed, however slow the machine is.
entrance=$cache/entrance
[ -d "$entrance" ] || node -e 'import("./cross/web/film.mjs").then((f) => f.thin(process.argv[1], process.argv[2], 4))' "$film" "$entrance"
AGENT_PREPARE=cross/web/enrol.sh run kiosk --set camera.source="$entrance" --set camera.kind=folder --set camera.loop=true --set camera.real_time=false \
	--set identify.enabled=true --set live.gone=100ms --set live.max_frames=12 --set live.max_rate=60 --set kiosk.attendant=reception --set kiosk.pin_pad=true

if [ ${#failed[@]} -gt 0 ]; then
	echo "failed: ${failed[*]}" >&2
	exit 1
fi
echo 'all pages pass'
