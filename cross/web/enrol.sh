#!/bin/bash
# Enrols the person of the sample film in a data folder.
set -euo pipefail
exec bin/postern --data "$1" enroll obama .cache/faces/obama.jpg --name 'Barack Obama' \
	--consent 'nobody: a public-domain portrait' --purpose tests >/dev/null
