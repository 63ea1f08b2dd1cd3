#!/bin/bash
# Runs the arm64 program under qemu-user, with the libraries that a board has, and holds
# it against this machine's: what is installed, a match, embeddings, a picture through
# OpenCV, enrolment, a hub on this machine, and kills while the store writes. Emulated
# time says nothing about a board.
#
# Left out, since emulation takes some ten times as long: the other tests, the live loop
# on a film, and most rounds of the kills (ROUNDS of them run, 5 by default; make kill
# runs 1000 on this machine).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
# shellcheck source=cross/target.sh
. "$root/cross/target.sh"
cd "$root"
log=$cache/qemu.log
faces=$cache/faces
ROUNDS=${ROUNDS:-5}
: >"$log"

emulator() { for q in qemu-aarch64-static qemu-aarch64; do command -v $q && return; done; }

if ! emulator >/dev/null; then
	read_os
	if ! is_supported_os || [ "$(id -u)" != 0 ]; then
		fail 'no qemu-aarch64, which runs arm64 programs' 'on Debian: apt-get install --no-install-recommends qemu-user-static'
	fi
	echo 'installing qemu-user-static'
	DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 install qemu-user-static >>"$log" 2>&1 </dev/null ||
		fail 'apt cannot install qemu-user-static' 'see .cache/qemu.log'
fi
qemu=$(emulator)
# A Raspberry Pi 4's. qemu's own default, a CPU with everything, has instructions (SME)
# with which the embedding network answers the same for every face; see docs/boards.md.
export QEMU_CPU=cortex-a72
native=dist/postern-hub-linux-amd64
board=dist/postern-linux-arm64
for f in "$native" "$board"; do [ -f "$f" ] || fail "there is no $f" 'make cross builds it'; done
cross/sysroot.sh
library=$(cross/litert.sh aarch64)/libLiteRt.so

work=$(mktemp -d)
pids=()
finish() {
	local p
	for p in "${pids[@]}"; do
		if kill "$p" 2>/dev/null; then wait "$p" 2>/dev/null || true; fi
	done
	rm -rf "$work"
}
trap finish EXIT
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

# as='exec' makes of a call in the background the program itself, so that it can be stopped.
arm() { ${as:-} "$qemu" -L "$sysroot" "$board" --set "inference.library=$library" --data "$work/board" --set device=board-1 "$@"; }
x86() { ${as:-} "$native" --set "inference.library=$cache/litert/libLiteRt.so" --data "$work/native" "$@"; }
value() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$2" | head -n 1; }
step() { printf '%-10s ' "$1"; }

step doctor
arm doctor >"$work/doctor"
grep -q '^ok    system         linux/arm64' "$work/doctor" || fail 'doctor does not say that it is on arm64'
grep -q '^ok    pipeline' "$work/doctor" || fail 'doctor cannot load the networks'
echo "$(grep -c '^ok ' "$work/doctor") checks pass"

# The same decision, and a score and a cosine that differ by rounding only.
step match
for pair in 'obama.jpg obama2.jpg' 'obama.jpg biden.jpg'; do
	read -r a b <<<"$pair"
	arm_status=0 x86_status=0
	arm match "$faces/$a" "$faces/$b" --json >"$work/arm.json" || arm_status=$?
	x86 match "$faces/$a" "$faces/$b" --json >"$work/x86.json" || x86_status=$?
	[ $arm_status = $x86_status ] || fail "$a and $b: exit code $arm_status on arm64, $x86_status on this machine"
	for key in status model_id calibration_id; do
		[ "$(value $key "$work/arm.json")" = "$(value $key "$work/x86.json")" ] ||
			fail "$a and $b: $key is $(value $key "$work/arm.json") on arm64, $(value $key "$work/x86.json") here"
	done
	awk -v a="$(value cosine "$work/arm.json")" -v b="$(value cosine "$work/x86.json")" 'BEGIN { d = a - b; exit !(a != "" && d < 0.01 && d > -0.01) }' ||
		fail "$a and $b: cosine $(value cosine "$work/arm.json") on arm64, $(value cosine "$work/x86.json") here"
	printf '%s %s (cosine %s; here %s) ' "${b%.jpg}" "$(value status "$work/arm.json")" "$(value cosine "$work/arm.json")" "$(value cosine "$work/x86.json")"
done
echo

# A CPU whose instructions the runtime gets wrong must not let anybody in. Whether
# qemu's "max" is one depends on qemu: then it must be refused, else decide as it should.
step refuse
arm_status=0
QEMU_CPU=max arm match "$faces/obama.jpg" "$faces/biden.jpg" >"$work/max" 2>&1 || arm_status=$?
case $arm_status in
1) echo 'on a CPU with every extension: decides as here' ;;
7) grep -q 'do not work on this machine' "$work/max" || { cat "$work/max" >&2; fail 'refused for another reason'; }
	echo 'on a CPU with every extension LiteRT answers every face alike: refused' ;;
*) cat "$work/max" >&2; fail "exit code $arm_status for two people on a CPU with every extension" ;;
esac

# OpenCV: a picture out of a film.
step camera
film=$(go list -m -f '{{.Dir}}' gocv.io/x/gocv)/images/small.mp4
arm camera snapshot "$work/picture.png" --set "camera.source=$film" >/dev/null
[ "$(head -c 4 "$work/picture.png" | tail -c 3)" = PNG ] || fail 'no picture came out of a film'
echo "a picture of $(stat -c %s "$work/picture.png") bytes out of a film"

step hub
: >"$work/hub.out"
as='exec' x86 hub --set hub.listen=127.0.0.1:0 --set hub.plain=true --set log.level=debug >"$work/hub.out" 2>"$work/hub.log" &
pids+=($!)
for _ in $(seq 300); do
	address=$(sed -n 's/.*listens at \(127[0-9.:]*\).*/\1/p' "$work/hub.out")
	[ -z "$address" ] || break
	sleep 0.2
done
[ -n "$address" ] || { cat "$work/hub.log" >&2; fail 'the hub did not start'; }
x86 devices add board-1 >"$work/token"
chmod 600 "$work/token"
arm enroll obama "$faces/obama.jpg" --consent 'nobody: a public-domain portrait' --purpose test >/dev/null
for _ in 1 2; do arm verify obama --image "$faces/obama2.jpg" >/dev/null; done
as='exec' arm run --set camera.source=none --set http.listen=127.0.0.1:0 \
	--set "sync.hub_url=mqtt://$address" --set "sync.token_file=$work/token" >"$work/agent.out" 2>"$work/agent.log" &
agent=$!
pids+=("$agent")
for _ in $(seq 600); do
	! grep -q 'results are in.*board-1.*up_to=2' "$work/hub.log" || break
	kill -0 $agent 2>/dev/null || break
	sleep 0.2
done
if ! grep -q 'results are in.*board-1.*up_to=2' "$work/hub.log"; then
	tail -n 20 "$work/agent.log" "$work/hub.log" >&2
	fail 'the hub did not get the two decisions of the emulated agent'
fi
echo "enrolled, verified twice; the hub has both decisions; resident $(awk '/^VmHWM/ { print int($2 / 1000) }' /proc/$agent/status) MB, the emulator's own among them"
kill $agent
wait $agent || fail 'the emulated agent did not stop cleanly'

step tests
mkdir -p "$work/tests/inference" "$work/tests/store"
(
	environment "$(go env GOHOSTARCH)"
	go test -tags nocamera -c -o "$work/tests/native" ./inference
)
(
	environment arm64
	go test -tags nocamera -c -o "$work/tests/inference.arm64" ./inference
	go test -c -o "$work/tests/store.arm64" ./agent/store
)
export TEST_EMBEDDINGS=$work/embeddings
(cd inference && "$work/tests/native" -test.run '^TestSameOnAnotherCPU$' >/dev/null)
(cd inference && TEST_LITERT=$library "$qemu" -L "$sysroot" "$work/tests/inference.arm64" -test.v -test.run '^TestSameOnAnotherCPU$' >"$work/same") ||
	{ cat "$work/same" >&2; fail 'the embeddings of arm64 are not those of this machine'; }
echo "$(grep -c 'cosine' "$work/same") embeddings, lowest cosine with this machine's $(sed -n 's/.*cosine //p' "$work/same" | sort -g | head -n 1)"

step kill
(cd agent/store && TEST_RUNNER="$qemu -L $sysroot" TEST_KILL_ROUNDS=$ROUNDS timeout 600 \
	"$qemu" -L "$sysroot" "$work/tests/store.arm64" -test.v -test.run '^TestKill$' >"$work/kill" 2>&1) ||
	{ tail -n 30 "$work/kill" >&2; fail 'the store did not survive kill -9'; }
sed -n 's/.*go:[0-9]*: \(.*rounds.*\)/\1/p' "$work/kill"
echo 'left out: the other tests, the live loop, and all but these rounds of kills'
