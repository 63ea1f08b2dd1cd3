# shellcheck shell=bash disable=SC2154
# What cross builds share. Source it after lib.sh.

sysroot=$cache/sysroot/arm64

compiler_arm64() {
	local packages=(g++-aarch64-linux-gnu libc6-dev-arm64-cross)
	if has aarch64-linux-gnu-g++ && has aarch64-linux-gnu-gcc; then return; fi
	read_os
	if ! is_supported_os || [ "$(id -u)" != 0 ]; then
		fail 'no aarch64-linux-gnu-g++, the C++ compiler for arm64' "on Debian: apt-get install --no-install-recommends ${packages[*]}"
	fi
	echo "installing ${packages[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
		install "${packages[@]}" >>"$log" 2>&1 </dev/null ||
		fail "apt cannot install ${packages[*]}" 'see .cache/setup.log'
}

# environment ARCH sets what cgo needs for it. For this machine's own architecture
# that is what the Makefile exports, so that gocv is compiled once.
environment() {
	[ -n "${CGO_LDFLAGS:-}" ] || fail 'the flags of the Makefile are missing' 'call this by make'
	export GOOS=linux GOARCH=$1 CGO_ENABLED=1 GOFLAGS=-trimpath PKG_CONFIG_PATH=$root/cross/pkgconfig
	[ "$1" != "$(go env GOHOSTARCH)" ] || return 0
	[ "$1" = arm64 ] || fail "this machine cannot build for $1" 'build for amd64 on an amd64 machine'
	compiler_arm64
	"$root/cross/sysroot.sh"
	export CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ PKG_CONFIG_SYSROOT_DIR=$sysroot
	# Without -g and with little optimisation: gocv only hands calls on.
	export CGO_CFLAGS='-O1 -ffunction-sections -fdata-sections'
	export CGO_CXXFLAGS=$CGO_CFLAGS
	export CGO_LDFLAGS="-L$sysroot/usr/lib/aarch64-linux-gnu -Wl,--gc-sections -Wl,--as-needed -Wl,--allow-shlib-undefined"
}
