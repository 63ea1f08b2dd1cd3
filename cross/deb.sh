#!/bin/bash
# Makes the Debian packages out of what cross/build.sh has put into dist:
#
#   dist/postern_VERSION_ARCH.deb       agent, hub and command line, with cameras
#   dist/postern-hub_VERSION_ARCH.deb   hub and command line, without OpenCV
#
# for amd64 and arm64, an SBOM (CycloneDX) beside each, and dist/SHA256SUMS. The same
# commit gives the same bytes; --check makes them twice and compares, and runs lintian.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
cd "$root"
next=0.1.0 # what the coming release is called
max_mb=25
own=cross/deb
tools=$cache/tools
sysroot_list=cross/sysroot-arm64.sha256
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git show -s --format=%ct 2>/dev/null || echo 1)}
export SOURCE_DATE_EPOCH
umask 022

# A release has its tag's name; what comes before one is ordered by the time of its commit.
deb_version() {
	local tag dirty=
	if tag=$(git describe --tags --exact-match 2>/dev/null) && [ -z "$(git status --porcelain)" ]; then
		echo "${tag#v}"
		return
	fi
	[ -z "$(git status --porcelain 2>/dev/null)" ] || dirty=+changed
	echo "$next~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=8 HEAD 2>/dev/null || echo 0)$dirty"
}

# The tools are pinned by a module of their own, so that none of theirs is in the program's.
get_tools() {
	local stamp
	stamp=$(cat cross/tools/go.mod cross/tools/go.sum | sha256sum)
	[ "$(cat "$tools/stamp" 2>/dev/null)" != "$stamp" ] || return 0
	mkdir -p "$tools"
	echo 'compiling nfpm and cyclonedx-gomod'
	for tool in github.com/goreleaser/nfpm/v2/cmd/nfpm github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod; do
		CGO_ENABLED=0 go build -C cross/tools -o "$tools/${tool##*/}" $tool
	done
	echo "$stamp" >"$tools/stamp"
}

fill() { # FILE TO: puts this package's names into a script
	sed -e "s|@VERSION@|$DEB_VERSION|g; s|@PACKAGE@|$PACKAGE|g; s|@USERS@|$users|g; s|@UNITS@|$units|g; s|@FIRST@|${units%% *}|g" "$1" >"$2"
}

# module_licences PROGRAM FOLDER copies the licences of all modules within it.
module_licences() {
	local module version dir f
	go version -m "$1" | awk '$1 == "dep" { print $2, $3 }' | while read -r module version; do
		dir=$(go mod download -json "$module@$version" | sed -n 's/^.*"Dir": "\(.*\)".*/\1/p')
		mkdir -p "$2/$module"
		for f in "$dir"/LICEN[CS]E* "$dir"/NOTICE* "$dir"/COPYING*; do
			[ ! -f "$f" ] || cp "$f" "$2/$module/"
		done
		[ -n "$(ls "$2/$module")" ] || fail "$module $version has no licence file"
	done
}

documents() { # FOLDER
	local m
	mkdir -p "$1/models"
	cp README.md NOTICE "$1/"
	for m in models/*/model.tflite; do
		m=${m%/*}
		mkdir -p "$1/$m"
		cp "$m/MODEL_CARD.md" "$m/LICENSE" "$m/manifest.json" "$1/$m/"
	done
	cp "$(cross/litert.sh "$cpu")/LICENSE" "$1/LICENSE.LiteRT"
	module_licences "$program" "$1/modules"
	printf 'postern is licensed under the Apache License 2.0 (/usr/share/common-licenses/Apache-2.0).\nParts of others and their licences: NOTICE, LICENSE.LiteRT, models/ and modules/ in this folder.\n' >"$1/copyright"
	printf '%s (%s) unstable; urgency=medium\n\n  * See the project'"'"'s CHANGELOG.\n\n -- %s  %s\n' "$PACKAGE" "$DEB_VERSION" "$MAINTAINER" \
		"$(LC_ALL=C date -uR -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$1/changelog.Debian.gz"
	gzip -9n <CHANGELOG.md >"$1/changelog.gz"
}

stage() {
	local unit page
	mkdir -p "$STAGE"/usr/{bin,sbin,lib/postern,share/{man/man1,lintian/overrides,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}} \
		"$STAGE/lib/systemd/system" "$STAGE/lib/udev/rules.d" "$CONF" "$SCRIPTS"
	install -m 0755 "$program" "$STAGE/usr/bin/postern"
	install -m 0755 $own/posternctl "$STAGE/usr/sbin/posternctl"
	install -m 0644 "$(cross/litert.sh "$cpu")/libLiteRt.so" "$STAGE/usr/lib/postern/libLiteRt.so"
	for unit in $units; do install -m 0644 "$own/$unit" "$STAGE/lib/systemd/system/$unit"; done
	cp $own/hub.yaml "$CONF/hub.yaml"
	if [ "$PACKAGE" = postern ]; then
		install -m 0644 $own/60-postern.rules "$STAGE/lib/udev/rules.d/"
		cp $own/agent.yaml "$CONF/postern.yaml"
	fi
	# The pages and completions are the same for every CPU: the program of this one writes them.
	"$here" man "$STAGE/usr/share/man/man1"
	for page in "$STAGE"/usr/share/man/man1/*.1; do gzip -9n "$page"; done
	"$here" completion bash >"$STAGE/usr/share/bash-completion/completions/postern"
	"$here" completion zsh >"$STAGE/usr/share/zsh/vendor-completions/_postern"
	"$here" completion fish >"$STAGE/usr/share/fish/vendor_completions.d/postern.fish"
	documents "$STAGE/usr/share/doc/$PACKAGE"
	fill $own/lintian-overrides "$STAGE/usr/share/lintian/overrides/$PACKAGE"
	for script in preinst postinst prerm postrm templates; do fill "$own/$script" "$SCRIPTS/$script"; done
	chmod 0755 "$SCRIPTS"/p*
	find "$STAGE" -type d -exec chmod 0755 {} +
	find "$STAGE" -path '*/usr/share/*' -type f -exec chmod 0644 {} +
}

package() { # NAME ARCH TO
	local work
	export PACKAGE=$1 ARCH=$2 MAINTAINER='The postern project <postern@localhost>'
	work=$(mktemp -d)
	export STAGE=$work/stage CONF=$work/conf SCRIPTS=$work/scripts
	cpu=x86_64 here=dist/postern-linux-amd64
	[ "$ARCH" = amd64 ] || cpu=aarch64
	case $PACKAGE in
	postern)
		program=dist/postern-linux-$ARCH users='postern postern-hub' units='postern.service postern-hub.service'
		DEPENDS='adduser, libc6 (>= 2.34), libgcc-s1, libstdc++6 (>= 12), libopencv-core406, libopencv-imgproc406, libopencv-imgcodecs406, libopencv-videoio406'
		RECOMMENDS='v4l-utils' CONFLICTS='postern-hub' PROVIDES='postern-hub'
		DESCRIPTION='Face match on the device: kiosk agent, hub and tools
 postern compares faces on the machine that stands at the door: it takes frames from a
 camera, finds the face, runs a quantised network locally, and decides. It works without
 a network, and reports to a hub when it has one. LiteRT and the networks are included.'
		;;
	postern-hub)
		program=dist/postern-hub-linux-$ARCH users=postern-hub units=postern-hub.service
		DEPENDS='adduser, libc6 (>= 2.34), libstdc++6 (>= 12)'
		RECOMMENDS='' CONFLICTS='postern' PROVIDES=''
		DESCRIPTION='Hub of a fleet of postern face-match agents
 Takes in what the agents of a fleet decide, exactly once, and keeps it. The program is
 that of the package postern without camera support, for servers.'
		;;
	esac
	[ "$(uname -m)" = x86_64 ] || here=dist/postern-linux-arm64
	export DEPENDS RECOMMENDS CONFLICTS PROVIDES DESCRIPTION
	[ -f "$program" ] || fail "there is no $program" 'make cross builds it'
	stage
	local deb=$3/${PACKAGE}_${DEB_VERSION}_$ARCH.deb
	$PYTHON $own/nfpm.py >"$work/nfpm.yaml"
	"$tools/nfpm" package --config "$work/nfpm.yaml" --packager deb --target "$deb" >>"$log" 2>&1 ||
		fail "nfpm cannot make $deb: $(tail -n 1 "$log")"
	sbom "$3"
	rm -rf "$work"
	local size
	size=$(stat -c %s "$deb")
	[ "$size" -le $((max_mb * 1000000)) ] || fail "$deb has $size bytes, more than $max_mb MB"
	echo "$deb: $((size / 1000)) kB"
}

sbom() { # FOLDER
	local libraries=() l file=$1/${PACKAGE}_${DEB_VERSION}_$ARCH.cdx.json
	"$tools/cyclonedx-gomod" bin -json -noserial -notimestamp -version "$DEB_VERSION" -output "$file" "$program" >>"$log" 2>&1 ||
		fail "cyclonedx-gomod cannot describe $program: $(tail -n 1 "$log")"
	for l in $(tr -d '",' <<<"$DEPENDS" | grep -o 'libopencv-[a-z0-9]*'); do
		libraries+=("$l=$(sed -n "s/.* ${l}_\(.*\)_arm64.deb/\1/p" $sysroot_list)")
	done
	$PYTHON $own/sbom.py "$file" . "$STAGE/usr/lib/postern/libLiteRt.so" "$litert_version" "${libraries[@]}"
}

all() { # FOLDER
	local name arch
	for arch in "${arches[@]}"; do
		for name in postern postern-hub; do (package $name "$arch" "$1"); done
	done
}

check() {
	local again deb
	again=$(mktemp -d)
	all "$again" >/dev/null
	for deb in "$again"/*; do
		cmp "$deb" "dist/${deb##*/}" || fail "${deb##*/} comes out different the second time"
	done
	rm -rf "$again"
	echo 'made twice: the same bytes'
	if has lintian; then
		lintian --fail-on error,warning --suppress-tags-from-file $own/lintian-not-ours dist/*"$DEB_VERSION"*.deb
		echo 'lintian: no error and no warning'
	else
		echo 'LINTIAN IS NOT INSTALLED: the packages were not linted (apt-get install lintian)'
	fi
}

arches=(amd64 arm64)
[ "$(uname -m)" = x86_64 ] || arches=(arm64)
DEB_VERSION=$(deb_version)
MTIME=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
export DEB_VERSION MTIME
mkdir -p dist "$cache"
log=$cache/deb.log
: >"$log"
get_tools
rm -f dist/*.deb dist/*.cdx.json dist/SHA256SUMS
all dist
[ "${1:-}" != --check ] || check
(cd dist && sha256sum ./*.deb ./*.cdx.json | sed 's| \./| |' >SHA256SUMS)
