#!/bin/bash
# Compiles postern for boards and servers, and checks what came out:
#
#   dist/postern-linux-ARCH       agent, hub and command line, with cameras (OpenCV)
#   dist/postern-hub-linux-ARCH   the same without OpenCV (tag nocamera), for servers
#
# for amd64 and arm64. LiteRT is loaded at run time. The same commit gives the same
# bytes: no path, time or host name gets into them.
#
#   cross/build.sh [agent-amd64] [agent-arm64] [hub-amd64] [hub-arm64] [nocgo] [armv7]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
# shellcheck source=cross/target.sh
. "$root/cross/target.sh"
cd "$root"
glibc=2.36     # Debian 12's
libstdcxx=3.4.30 # as GLIBCXX names it
VERSION=${VERSION:-dev}

compile() { # flavour, arch, tags
	local out=dist/postern-linux-$2
	[ "$1" = agent ] || out=dist/postern-$1-linux-$2
	echo "compiling $out"
	environment "$2"
	go build -tags "$3" -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o "$out" ./agent/cmd/postern
	"check_$1" "$out"
	check_binary "$out" "$2"
}

needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

# What Debian 12 has without OpenCV, and the parts of OpenCV that cameras need: one
# library more, and a board has to have it.
check_hub() { only "$1" "$plain"; }
check_agent() {
	only "$1" "$plain libstdc++.so.6 libgcc_s.so.1 libopencv_videoio.so.406 libopencv_imgproc.so.406 libopencv_imgcodecs.so.406 libopencv_core.so.406"
	needed "$1" | grep -q libopencv_videoio || fail "$1 has no OpenCV in it"
}
plain='libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 libresolv.so.2 ld-linux-aarch64.so.1 ld-linux-x86-64.so.2'

only() {
	local library
	for library in $(needed "$1"); do
		[[ " $2 " == *" $library "* ]] || fail "$1 needs $library, which a board may not have"
	done
}

# check_binary FILE ARCH: the machine it is for, and how new the libraries must be.
check_binary() {
	local machine want newest
	machine=$(readelf -h "$1" | sed -n 's/^ *Machine: *//p')
	case $2 in arm64) want=AArch64 ;; amd64) want='Advanced Micro Devices X86-64' ;; esac
	[ "$machine" = "$want" ] || fail "$1 is for $machine, not for $want"
	newest=$(newest "$1" GLIBC)
	at_least "$newest" $glibc || fail "$1 needs glibc $newest, Debian $debian_version has $glibc"
	at_least "$(newest "$1" GLIBCXX)" $libstdcxx || fail "$1 needs GLIBCXX_$(newest "$1" GLIBCXX), Debian $debian_version has $libstdcxx"
	! readelf -d "$1" | grep -qE 'RPATH|RUNPATH' || fail "$1 has a run path in it"
	! grep -qaF "$root" "$1" || fail "$1 has the path of this folder in it"
	echo "$1: $machine, $(du -h "$1" | cut -f1), glibc $newest or newer, needs $(needed "$1" | tr '\n' ' ')"
}

newest() { readelf -V "$1" | grep -o "\b$2_[0-9.]*" | sed "s/$2_//" | sort -uV | tail -n 1; }

# Without C there is no inference; commands that need none still work.
nocgo() {
	echo 'compiling without C'
	GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go build -buildvcs=false -o /dev/null ./agent/cmd/postern
}

armv7() {
	echo 'armv7: not built. LiteRT comes for x86_64 and aarch64 only, Debian 12 packages no TensorFlow Lite,'
	echo '       and the armv7l wheel of tflite-runtime has its C++ classes but not its C interface (docs/boards.md).'
}

mkdir -p dist
[ $# -gt 0 ] || set -- agent-amd64 agent-arm64 hub-amd64 hub-arm64 nocgo armv7
for what in "$@"; do
	case $what in
	agent-amd64 | agent-arm64) (compile agent "${what#*-}" '') ;;
	hub-amd64 | hub-arm64) (compile hub "${what#*-}" nocamera) ;;
	nocgo | armv7) $what ;;
	*) fail "unknown target $what" 'agent-amd64, agent-arm64, hub-amd64, hub-arm64, nocgo, armv7' ;;
	esac
done
