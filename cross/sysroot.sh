#!/bin/bash
# Lays out an arm64 sysroot in .cache/sysroot/arm64: OpenCV with headers, and every
# library that a program on OpenCV loads, unpacked from Debian's packages. Nothing is
# installed on this machine, and no other architecture is added to its apt.
#
#   cross/sysroot.sh         make it, from the packages pinned in sysroot-arm64.sha256
#   cross/sysroot.sh pin     write that list anew, from what the archive has today
#
# Debian's archive keeps the newest packages of a release only. Where a pinned one has
# gone its successor is taken, which apt checks against the archive's signature, and
# that is said; SYSROOT=pinned refuses it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
log=$cache/sysroot.log

place=$cache/sysroot
tree=$place/arm64
debs=$place/debs
list=$root/cross/sysroot-arm64.sha256
lib=usr/lib/aarch64-linux-gnu

# What the program is linked with, and the headers that gocv includes.
runtime=(libopencv-videoio406 libopencv-imgcodecs406 libopencv-imgproc406 libopencv-core406
	libstdc++6 libgcc-s1 libc6 zlib1g)
headers=()
for module in calib3d core dnn features2d flann highgui imgcodecs imgproc ml objdetect photo \
	stitching video videoio; do
	headers+=("libopencv-$module-dev")
done

# apt with a state of its own, the system's sources, and arm64 as its architecture.
apt_arm64() {
	local tool=$1
	shift
	mkdir -p "$place/apt/lists/partial" "$place/apt/archives/partial"
	: >"$place/apt/status"
	"$tool" -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$place/apt" \
		-o Dir::State::status="$place/apt/status" -o Dir::Cache="$place/apt" -o APT::Sandbox::User=root \
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Get::AllowUnauthenticated=false \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@" 2>>"$log" </dev/null
}

update() {
	# A foreign source that is down must not stop us: the download shows what counts.
	apt_arm64 apt-get update >>"$log" || true
}

# file NAME gives the package file of a package, or nothing.
file() {
	local f
	for f in "$debs/$1"_*_arm64.deb "$debs/$1"_*_all.deb; do
		[ ! -f "$f" ] || { echo "${f##*/}"; return; }
	done
}

download() { (cd "$debs" && apt_arm64 apt-get -q download "$@" >>"$log"); }

# get_pinned brings the listed files that are not there, or not right.
get_pinned() {
	local sum name version want=() file
	(cd "$debs" && sha256sum --check --quiet "$list" >/dev/null 2>&1) && return
	while read -r sum file; do
		[ -f "$debs/$file" ] && [ "$(sha256 "$debs/$file")" = "$sum" ] && continue
		rm -f "$debs/$file"
		name=${file%%_*} version=${file#*_}
		version=${version%_*}
		want+=("$name=${version//%3a/:}")
	done <"$list"
	echo "sysroot: downloading ${#want[@]} packages for arm64"
	update
	download "${want[@]}" || get_successors "${want[@]}"
	while read -r sum file; do
		[ ! -f "$debs/$file" ] || [ "$(sha256 "$debs/$file")" = "$sum" ] || {
			rm -f "$debs/$file"
			fail "wrong checksum: $file is not the pinned one; it is not used" 'whatever serves packages to this machine gave another file: look into that'
		}
	done <"$list"
}

# get_successors NAME=VERSION… brings each, or what has taken its place.
get_successors() {
	local package name
	for package in "$@"; do
		name=${package%%=*}
		[ -z "$(file "$name")" ] || continue
		download "$package" && continue
		[ "${SYSROOT:-}" != pinned ] || fail "the archive has no $package any more" 'cross/sysroot.sh pin writes the list anew'
		download "$name" || fail "apt has neither $package nor another $name for arm64" 'see .cache/sysroot.log; is the network there?'
		echo "sysroot: the archive has no $package any more; took $(file "$name")"
	done
}

# unpack FILE FOLDER leaves out what neither the linker nor the loader reads.
unpack() {
	dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --no-same-owner \
		--exclude='*.a' --exclude=./usr/share --exclude=./etc --exclude=./var --exclude=./usr/bin --exclude=./usr/sbin
}

# What package scripts would do: the two libraries that come by update-alternatives.
alternatives() {
	local name
	for name in blas lapack; do
		[ ! -f "$1/$lib/$name/lib$name.so.3" ] || ln -sfn "$name/lib$name.so.3" "$1/$lib/lib$name.so.3"
	done
}

make_tree() {
	local name=$tree.part sum file
	rm -rf "$name" "$tree"
	mkdir -p "$name/proc"
	while read -r sum file; do
		[ -f "$debs/$file" ] || file=$(file "${file%%_*}")
		unpack "$debs/$file" "$name"
	done <"$list"
	alternatives "$name"
	# qemu-user looks paths up here first, and LiteRT asks this file what the CPU can do.
	cp "$root/cross/qemu/cpuinfo" "$name/proc/cpuinfo"
	mv "$name" "$tree"
}

# stamp names all that the tree is made of.
stamp() { cat "$list" "$root/cross/qemu/cpuinfo" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1; }

make() {
	if [ "$(cat "$place/made" 2>/dev/null)" = "$(stamp)" ] && [ -d "$tree" ]; then
		return
	fi
	rm -f "$place/made"
	get_pinned
	make_tree
	stamp >"$place/made"
	echo "sysroot: $(wc -l <"$list") packages, $(du -sh "$tree" | cut -f1)"
}

# needed prints, of the packages unpacked one by one below $1, those whose libraries
# are loaded, from the runtime packages on.
needed() {
	local each=$1 f name queue=("${runtime[@]}") package
	declare -A owner seen
	while IFS= read -r f; do
		name=${f#"$each"/}
		package=${name%%/*}
		owner[${f##*/}]=$package
	done < <(find "$each" -name '*.so*' -path '*/lib/*' -not -path '*/gconv/*')
	while [ ${#queue[@]} -gt 0 ]; do
		package=${queue[0]}
		queue=("${queue[@]:1}")
		[ -z "${seen[$package]:-}" ] || continue
		seen[$package]=yes
		echo "$package"
		while IFS= read -r name; do
			[ -z "${owner[$name]:-}" ] || queue+=("${owner[$name]}")
		done < <(find "$each/$package" -type f -name '*.so*' -not -path '*/gconv/*' -exec readelf -d {} + 2>/dev/null |
			sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u)
	done
}

pin() {
	local each=$place/each name f
	update
	rm -rf "$each" "$debs"
	mkdir -p "$each" "$debs"
	# shellcheck disable=SC2046 # names
	download $(apt_arm64 apt-get -y --no-install-recommends --print-uris install "${runtime[@]}" |
		sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p") "${headers[@]}"
	for f in "$debs"/*.deb; do
		name=${f##*/}
		name=${name%%_*}
		mkdir -p "$each/$name"
		unpack "$f" "$each/$name"
	done
	{
		needed "$each"
		printf '%s\n' "${headers[@]}"
	} | while IFS= read -r name; do
		(cd "$debs" && sha256sum "$(file "$name")")
	done | sort -k 2 >"$list.new"
	mv "$list.new" "$list"
	rm -rf "$each"
	echo "sysroot: pinned $(wc -l <"$list") packages"
}

mkdir -p "$debs"
if has flock; then
	exec 8>"$place/lock"
	flock 8
fi
: >"$log"
case ${1:-make} in
make) make ;;
pin) pin ;;
*) fail "unknown word $1" 'cross/sysroot.sh, or cross/sysroot.sh pin' ;;
esac
