#!/bin/bash
# Compiles postern for arm64, without OpenCV (tag nocamera: folders of pictures
# only), and once without any C; then checks what came out. LiteRT is loaded at run
# time, so nothing but the C library is linked.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
cd "$root"
compiler=aarch64-linux-gnu-gcc
out=dist/postern-linux-arm64

if ! has $compiler; then
	read_os
	if is_supported_os && [ "$(id -u)" = 0 ]; then
		echo "installing gcc-aarch64-linux-gnu"
		DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
			install gcc-aarch64-linux-gnu libc6-dev-arm64-cross >>"$log" 2>&1 </dev/null ||
			fail 'apt cannot install gcc-aarch64-linux-gnu' 'see .cache/setup.log'
	else
		fail "no $compiler, the C compiler for arm64" \
			'on Debian: apt-get install --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
	fi
fi

mkdir -p dist
echo "compiling $out"
# Flags meant for this machine's OpenCV have no business there.
env -u CGO_CXXFLAGS -u CGO_LDFLAGS -u CGO_CPPFLAGS GOOS=linux GOARCH=arm64 CGO_ENABLED=1 CC=$compiler \
	go build -tags nocamera -buildvcs=false -trimpath -ldflags "-X main.version=${VERSION:-dev}" -o $out ./agent/cmd/postern

machine=$(readelf -h $out | sed -n 's/^ *Machine: *//p')
[ "$machine" = AArch64 ] || fail "$out is for $machine, not for AArch64"
for library in $(readelf -d $out | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
	case $library in
	libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | libresolv.so.2 | ld-linux-aarch64.so.1) ;;
	*) fail "$out needs $library, which a board may not have" ;;
	esac
done
newest=$(readelf -V $out | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
at_least "${newest#GLIBC_}" 2.36 || fail "$out needs ${newest/_/ }, Debian 12 has 2.36"
echo "$out: $machine, $(du -h $out | cut -f1), needs nothing but ${newest/_/ }"

for arch in amd64 arm64; do
	echo "compiling for $arch without C"
	GOOS=linux GOARCH=$arch CGO_ENABLED=0 go build -buildvcs=false -o /dev/null ./agent/cmd/postern
done
