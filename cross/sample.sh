#!/bin/bash
# Renders the films that stand in for a camera, once: feed.avi is the sample feed; in
# first.avi the enrolled person is there from the first frame.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sample=.cache/sample
mkdir -p $sample

render() { # FILE ARGUMENTS...
	[ ! -f "$sample/$1" ] || return 0
	echo "rendering $1 (once)"
	bin/postern camera sample --faces .cache/faces --out "$sample/$1" "${@:2}"
}

for film in "$@"; do
	case $film in
	feed.avi) render feed.avi ;;
	first.avi) render first.avi --from 6200ms --for 4s ;;
	esac
done
