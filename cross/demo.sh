#!/bin/bash
# Starts the agent on a sample feed: real portraits played through the same path
# as a camera. Further arguments go to "postern run".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

postern=bin/postern
sample=.cache/sample
data=data/demo
mkdir -p data

cross/sample.sh feed.avi
if ! $postern --data $data subjects show obama >/dev/null 2>&1; then
	$postern --data $data enroll obama .cache/faces/obama.jpg --name 'Barack Obama' \
		--consent 'nobody: a public-domain portrait' --purpose 'demonstration'
elif ! $postern --data $data subjects show obama --json | grep -q given_by; then
	$postern --data $data consent obama --consent 'nobody: a public-domain portrait' --purpose 'demonstration'
fi
exec $postern --data $data run --with-hub --set camera.source=$sample/feed.avi --set camera.loop=true \
	--set camera.real_time=true --set identify.enabled=true "$@"
