#!/bin/bash
# Installs the packages of this machine's CPU in a clean Debian root and lives through
# what happens to them: install, start of the agent, an enrolment, upgrade with data,
# refused downgrade, removal, purge without and with leave. The root is thrown away; its
# start is kept in .cache/clean-root. Needs root (it uses chroot).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
cd "$root"
log=$cache/deb-test.log
arch=$(dpkg --print-architecture)
port=${DEB_TEST_PORT:-18808}
: >"$log"

[ "$(id -u)" = 0 ] || fail 'not root: packages are installed in a chroot' 'sudo make deb-test'
shopt -s nullglob
debs=(dist/postern_*_"$arch".deb)
hub_debs=(dist/postern-hub_*_"$arch".deb)
shopt -u nullglob
[ ${#debs[@]} -eq 1 ] || fail "there are ${#debs[@]} packages postern for $arch in dist, not one" 'make deb builds them'
deb=${debs[0]}
read_os
if ! has mmdebstrap; then
	is_supported_os || fail 'no mmdebstrap, which makes a clean root' 'install it'
	echo 'installing mmdebstrap'
	DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 install mmdebstrap >>"$log" 2>&1 </dev/null ||
		fail 'apt cannot install mmdebstrap' 'see .cache/deb-test.log'
fi

work=$(mktemp -d)
clean=$work/root
agent=
finish() {
	[ -z "$agent" ] || kill "$agent" 2>/dev/null || true
	! mountpoint -q "$clean/proc" 2>/dev/null || umount "$clean/proc" || umount -l "$clean/proc" || true
	rm -rf --one-file-system "$work"
}
trap finish EXIT

# What a clean root starts from: Debian's essential packages, and what ours depends on,
# for a day at most, as the archive moves on.
base=$cache/clean-root.tar
depends=$(dpkg-deb -f "$deb" Depends | sed 's/ ([^)]*)//g; s/ //g')
if [ "$(cat "$base.from" 2>/dev/null)" != "$depends $(date +%F)" ] || [ ! -f "$base" ]; then
	echo 'making a clean root (a minute or two)'
	rm -f "$base"
	mmdebstrap --variant=minbase --include="debconf,systemd,$depends" --aptopt='Acquire::Retries "3"' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-include=/usr/share/doc/postern*' --dpkgopt=force-unsafe-io \
		bookworm "$base.part" >>"$log" 2>&1 </dev/null ||
		fail "mmdebstrap cannot make a clean root: $(grep '^E:' "$log" | tail -n 1)" 'see .cache/deb-test.log'
	mv "$base.part" "$base"
	echo "$depends $(date +%F)" >"$base.from"
fi
mkdir "$clean"
tar -x -C "$clean" -f "$base" --exclude='./dev/*'
[ -e "$clean/dev/null" ] || mknod -m 666 "$clean/dev/null" c 1 3 2>/dev/null || { : >"$clean/dev/null"; chmod 666 "$clean/dev/null"; }
[ -e "$clean/dev/urandom" ] || mknod -m 666 "$clean/dev/urandom" c 1 9 2>/dev/null || true
mount -t proc proc "$clean/proc" 2>/dev/null || echo 'no right to mount /proc: the tests do without'

inside() {
	${as:-} env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive no_proxy='*' \
		"${with[@]}" chroot "$clean" "$@" </dev/null
}
with=()
said=$work/said
dpkg_() {
	local status=0
	inside dpkg "$@" >"$said" 2>&1 || status=$?
	cat "$said" >>"$log"
	return $status
}
expect() { grep -qF "$1" "$said" || { cat "$said" >&2; fail "\"$1\" was not said"; }; }
data() { [ -n "$(find "$clean/var/lib/postern/data" -type f 2>/dev/null)" ]; }

# newer FILE TO: the same package as its own successor.
newer() {
	local v
	v=$(dpkg-deb -f "$1" Version)
	dpkg-deb -R "$1" "$work/newer"
	sed -i "s/^Version: .*/Version: $v+next/" "$work/newer/DEBIAN/control"
	sed -i "s/^new=.*/new='$v+next'/" "$work/newer/DEBIAN/preinst"
	dpkg-deb --root-owner-group -Zgzip -z1 -b "$work/newer" "$2" >/dev/null
}

healthy() {
	"$PYTHON" -c 'import sys, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(sys.argv[1], timeout=5)' \
		"http://127.0.0.1:$port/system/healthcheck/" 2>/dev/null
}

start_agent() {
	as='exec' inside setpriv --reuid=postern --regid=postern --init-groups /usr/bin/postern run --config /etc/postern/postern.yaml \
		--set camera.source=none --set "http.listen=127.0.0.1:$port" >"$work/agent.out" 2>&1 &
	agent=$!
	for _ in $(seq 300); do
		! healthy || return 0
		kill -0 "$agent" 2>/dev/null || break
		sleep 0.2
	done
	cat "$work/agent.out" >&2
	fail 'the installed agent does not get healthy'
}
stop_agent() { # chroot and setpriv replace themselves, so this is postern
	kill "$agent"
	wait "$agent" || { cat "$work/agent.out" >&2; fail 'the installed agent did not stop cleanly'; }
	agent=
}
step() { printf '%-10s ' "$1"; }

step install
cp "$deb" "$clean/tmp/this.deb"
newer "$deb" "$clean/tmp/newer.deb"
dpkg_ -i /tmp/this.deb || { cat "$said" >&2; fail "dpkg cannot install $deb"; }
inside systemd-analyze verify /lib/systemd/system/postern.service /lib/systemd/system/postern-hub.service >"$said" 2>&1 || true
! grep -qE 'postern.*(Unknown|Failed to parse|Invalid|ignoring)' "$said" || { cat "$said" >&2; fail 'systemd does not understand the units'; }
inside posternctl doctor >"$said" || { cat "$said" >&2; fail 'the installed postern is not ready'; }
expect 'all networks load'
[ "$(stat -c %a "$clean/var/lib/postern")" = 700 ] || fail '/var/lib/postern is open to others'
inside postern version

step agent
start_agent
stop_agent
cp .cache/faces/obama.jpg .cache/faces/obama2.jpg "$clean/tmp/"
chmod 644 "$clean"/tmp/obama*.jpg
inside posternctl enroll obama /tmp/obama.jpg --consent 'nobody: a public-domain portrait' --purpose test >/dev/null
inside posternctl verify obama --image /tmp/obama2.jpg >"$said"
expect Approved
echo 'starts, is healthy, stops; a face is enrolled and approved'

step upgrade
start_agent
dpkg_ -i /tmp/newer.deb || { cat "$said" >&2; fail 'dpkg cannot upgrade'; }
stop_agent
inside posternctl subjects show obama >"$said"
inside posternctl verify obama --image /tmp/obama2.jpg >"$said"
expect Approved
echo 'under a running agent; the data is there'

step downgrade
! dpkg_ -i /tmp/this.deb || fail 'an older package was installed over a newer one'
expect 'may not read what the newer'
inside dpkg -s postern >"$said"
expect 'Status: install ok installed'
expect "Version: $(dpkg-deb -f "$clean/tmp/newer.deb" Version)"
inside posternctl verify obama --image /tmp/obama2.jpg >"$said"
expect Approved
echo 'refused; the newer one still works'

step remove
dpkg_ -r postern
data || fail 'removing the package took the data with it'
[ ! -e "$clean/usr/bin/postern" ] || fail 'removing the package left the program'
dpkg_ -P postern
expect 'NOT destroyed'
data || fail 'a purge without leave destroyed the data'
dpkg_ -i /tmp/newer.deb
inside posternctl verify obama --image /tmp/obama2.jpg >"$said"
expect Approved
with=(POSTERN_PURGE=destroy)
dpkg_ -P postern
with=()
[ ! -e "$clean/var/lib/postern" ] || fail 'a purge with leave left data'
! inside getent passwd postern >/dev/null || fail 'a purge left the user'
[ ! -e "$clean/etc/postern" ] || fail 'a purge left /etc/postern'
echo 'a purge asks: without an answer the data stays and opens again, with leave all is gone'

step hub
cp "${hub_debs[0]}" "$clean/tmp/hub.deb"
dpkg_ -i /tmp/hub.deb || { cat "$said" >&2; fail "dpkg cannot install ${hub_debs[0]}"; }
inside posternctl --hub devices add door-1 >/dev/null
! inside ldd /usr/bin/postern | grep -q opencv || fail 'the hub needs OpenCV'
with=(POSTERN_PURGE=destroy)
dpkg_ -P postern-hub
[ ! -e "$clean/var/lib/postern-hub" ] || fail 'a purge of the hub left data'
echo 'installs, knows a device, is purged'
