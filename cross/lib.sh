# shellcheck shell=bash disable=SC2015,SC2034,SC2154
# What set-up and doctor share. Source it with $root set to the project's folder.

cache=$root/.cache
packages=$cache/packages
log=$cache/setup.log
PYTHON=${PYTHON:-python3}
# shellcheck source=cross/pins.sh
. "$root/cross/pins.sh"

# fail WHAT [FIX] stops with one sentence and what to do about it.
fail() {
	[ -z "${open_line:-}" ] || echo
	echo "${0##*/}: $1" >&2
	[ $# -lt 2 ] || echo "  fix: $2" >&2
	exit 1
}

sha256() { sha256sum "$1" | cut -d' ' -f1; }

has() { command -v "$1" >/dev/null 2>&1; }

# at_least WANT HAVE compares versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# pin NAME gives the pin of this machine's CPU.
pin() {
	local name
	name=$1_$(uname -m)
	echo "${!name}"
}

# The distribution: os_id, os_version, os_name.
read_os() {
	os_id=unknown os_version='' os_name='an unknown system' os_like=''
	local file=${SETUP_OS_RELEASE:-/etc/os-release} key value
	[ -r "$file" ] || return 0
	while IFS='=' read -r key value; do
		value=${value#\"} value=${value%\"}
		case $key in
		ID) os_id=$value ;;
		ID_LIKE) os_like=$value ;;
		VERSION_ID) os_version=$value ;;
		PRETTY_NAME) os_name=$value ;;
		esac
	done <"$file"
}

is_supported_os() { [ "$os_id" = debian ] && [ "$os_version" = "$debian_version" ]; }

# Each check_… says in $found what is there, or in $problem what is not.

check_machine() {
	local arch libc cpuinfo=${SETUP_CPUINFO:-/proc/cpuinfo}
	arch=$(uname -m)
	[ "$(uname -s)" = Linux ] || { problem="$(uname -s) is not Linux"; return 1; }
	case $arch in
	x86_64)
		# LiteRT's kernels use SSE4.1 without asking.
		[ ! -r "$cpuinfo" ] || grep -qw sse4_1 "$cpuinfo" || {
			problem="unsupported CPU: this x86_64 lacks SSE4.1, which LiteRT needs"
			return 1
		}
		;;
	aarch64) ;;
	*)
		problem="unsupported CPU $arch: LiteRT $litert_version comes for x86_64 and aarch64 only"
		return 1
		;;
	esac
	[ "$(getconf LONG_BIT)" = 64 ] || { problem="this is a 32-bit system on a 64-bit CPU: LiteRT needs a 64-bit one"; return 1; }
	libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=''
	[ -n "$libc" ] || { problem="this system's C library is not glibc, which LiteRT needs"; return 1; }
	at_least "$litert_glibc" "${libc#glibc }" || { problem="$libc is older than $litert_glibc, which LiteRT needs"; return 1; }
	found="$os_name, $arch"
}

check_compiler() {
	has gcc && has g++ || { problem='no C and C++ compiler'; return 1; }
	echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || { problem='the C compiler has no headers of the C library'; return 1; }
	found="gcc $(gcc -dumpfullversion)"
}

check_pkgconfig() {
	has pkg-config || { problem='no pkg-config'; return 1; }
	found="pkg-config $(pkg-config --version)"
}

# Our own opencv4.pc stands before the system's and always answers, so the compiler
# is asked: for the headers, gocv's rarest among them, and for the libraries.
check_opencv() {
	local v
	check_pkgconfig && check_compiler || return 1
	v=$(probe_opencv) || { problem='no OpenCV with headers'; return 1; }
	case $v in
	"$opencv_version".*) found="OpenCV $v" ;;
	*) problem="OpenCV is $v, gocv needs $opencv_version"; return 1 ;;
	esac
}

# probe_opencv prints the version of an OpenCV that compiles and links.
probe_opencv() {
	local cflags libs v
	export PKG_CONFIG_PATH=$root/cross/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
	cflags=$(pkg-config --cflags opencv4 2>/dev/null) && libs=$(pkg-config --libs opencv4) || return 1
	# shellcheck disable=SC2086 # lists of flags
	v=$(g++ -E -P -x c++ $cflags - 2>/dev/null <<-'END' | sed -n 's/^version //p' | tr ' ' .
		#if !__has_include(<opencv2/opencv.hpp>) || !__has_include(<opencv2/wechat_qrcode.hpp>)
		#error "not all of OpenCV"
		#endif
		#include <opencv2/core/version.hpp>
		version CV_VERSION_MAJOR CV_VERSION_MINOR CV_VERSION_REVISION
	END
	) && [ -n "$v" ] || return 1
	# shellcheck disable=SC2086
	echo 'int main() { return 0; }' | g++ -x c++ - $libs -o /dev/null 2>/dev/null || return 1
	echo "$v"
}

check_python() {
	"$PYTHON" -m pip --version >/dev/null 2>&1 || { problem='no Python 3 with pip'; return 1; }
	found=$("$PYTHON" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])')
}

check_certificates() {
	[ -n "${SSL_CERT_FILE:-}" ] || [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -d /etc/pki/tls/certs ] ||
		[ -e /etc/ssl/cert.pem ] || { problem='no CA certificates'; return 1; }
	found='CA certificates'
}

check_git() {
	has git || { problem='no git'; return 1; }
	found=$(git --version)
}

wanted_go() { sed -n 's/^go //p' "$root/go.mod"; }

# The go command decides itself which release serves this module; one that is too
# old, or may not fetch a newer, gives no answer or an old one.
check_go() {
	local have
	PATH=$cache/go/bin:$PATH
	has go || { problem='no Go'; return 1; }
	have=$(cd "$root" && go env GOVERSION 2>>"$log") || have=''
	[ -n "$have" ] && at_least "$(wanted_go)" "${have#go}" || {
		problem="Go ${have#go} is older than $(wanted_go), which go.mod asks for"
		[ -n "$have" ] || problem="this Go is older than $(wanted_go), which go.mod asks for"
		return 1
	}
	found="Go ${have#go}"
}

check_litert() {
	local file=$cache/litert/libLiteRt.so
	[ -f "$file" ] && [ -f "$cache/litert/LICENSE" ] || { problem='no LiteRT library'; return 1; }
	[ "$(sha256 "$file")" = "$(pin litert_library)" ] || { problem='the LiteRT library is damaged or another version'; return 1; }
	found="LiteRT $litert_version"
}

check_faces() {
	(cd "$cache/faces" 2>/dev/null && sha256sum --quiet --status -c "$root/cross/faces.sha256" 2>/dev/null) ||
		{ problem='no test faces, or not all'; return 1; }
	found="$(grep -c . "$root/cross/faces.sha256") pictures"
}
