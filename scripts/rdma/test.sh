#!/usr/bin/env bash
# Runs what needs real verbs on soft-RoCE in a guest: `make test-rdma`. With
# arguments, only those parts.
#
# A part that cannot run is named in the last lines, with the reason and how to
# get it; with CI=true it fails the run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
guest=$here/guest.sh

# Each part is a function. To add one, write it and name it here.
parts=(smoke build provider race conformance apart hosts faults)

# The guest boots, and its verbs carry data.
smoke() {
  "$guest" -t 60 -x 'ibv_devices
    ibv_rc_pingpong -d rxe0 -g 1 -n 100 >/dev/null &
    until netstat -ltn | grep -q :18515; do usleep 50000; done
    ibv_rc_pingpong -d rxe0 -g 1 -n 100 10.99.0.1 && wait $!'
}

# What is built with libibverbs only is checked as all else is.
build() {
  go vet -tags verbs ./cgo/... ./rdma/...
  go run "honnef.co/go/tools/cmd/staticcheck@$(sed -n 's/^STATICCHECK_VERSION := //p' Makefile)" -tags verbs ./cgo/... ./rdma/verbs/...
}

# compile makes the test binary of a package, with further flags of go test if there are
# any, and prints where it is.
compile() {
  local package=$1 bin
  shift
  bin=.cache/rdma/bin/${package//\//-}$*.test
  go test -c -tags verbs "$@" -o "$bin" "./$package"
  echo "$bin"
}

# The provider: the suite of rdma/rdmatest, and its errors, on one host.
provider() {
  local bin
  bin=$(compile rdma/verbs)
  "$guest" -t 180 -e NOVA_TEST_VERBS=1 "$bin" -test.v -test.timeout 170s
}

# The same with the race detector.
race() {
  local bin
  bin=$(compile rdma/verbs -race)
  "$guest" -t 300 -e NOVA_TEST_VERBS=1 "$bin" -test.v -test.timeout 290s
}

# Two hosts on a cable, and what the sender sees of each fault: the table at the end.
hosts() {
  local bin
  bin=$(compile rdma/verbs)
  NOVA_TEST_HOSTS=1 "$bin" -test.v -test.run '^TestHosts$' -test.timeout 280s
}

# The lane under random faults, in one guest and across two: the tables at the end.
faults() {
  local bin
  bin=$(compile internal/lane/rdma)
  for hosts in 1 2; do
    NOVA_TEST_HOSTS=$hosts "$bin" -test.v -test.run '^TestGuestFaults$' -test.timeout 480s
  done
}

# The conformance suite over the lane rdma, on one host. Nothing waits for less than
# two minutes: a case of a thousand streams takes half of one where a machine is emulated.
conformance() {
  local bin
  bin=$(compile conformance)
  "$guest" -t 600 -m 2048 -e NOVA_TEST_LANES=rdma-verbs -e NOVA_TEST_PATIENCE=2m "$bin" -test.v -test.short -test.timeout 590s
}

# The same on two hosts: the receiving side of each case on one, the sending side on the
# other, which runs what it is told to.
apart() {
  local bin dir far rc=0
  bin=$(compile conformance)
  dir=$(mktemp -d)
  "$guest" -t 600 -c 1 -d "$dir" -r b -e NOVA_TEST_AGENT=10.77.0.2:9200 "$bin" >"$dir/b.log" 2>&1 &
  far=$!
  "$guest" -t 600 -c 1 -d "$dir" -r a -e NOVA_TEST_LANES=rdma-verbs-hosts -e NOVA_TEST_FAR=10.77.0.2:9200 -e NOVA_TEST_PATIENCE=2m \
    "$bin" -test.v -test.short -test.timeout 590s || rc=$?
  kill "$(cat "$dir/b.pid")" || true
  wait "$far" || true # it was ended
  [ "$rc" = 0 ] || sed 's/^/b: /' "$dir/b.log"
  rm -rf "$dir"
  return "$rc"
}

[ $# = 0 ] || parts=("$@")
failed=() missed=()
if reason=$("$here/packages.sh") && NOVA_RDMA_IMAGE=$("$here/image.sh"); then
  export NOVA_RDMA_IMAGE
  for p in "${parts[@]}"; do
    echo "rdma: $p"
    start=$SECONDS
    set +e # bash would ignore set -e within a condition
    (set -e; "$p")
    rc=$?
    set -e
    if [ $rc = 0 ]; then echo "rdma: $p: ok, $((SECONDS - start)) s"; else failed+=("$p"); fi
  done
else
  missed=("${parts[@]}")
fi

for p in "${failed[@]}"; do echo "rdma: $p: FAILED"; done
for p in "${missed[@]}"; do
  echo "rdma: $p: DID NOT RUN: ${reason:-the image could not be built, see above}; then: make test-rdma"
done
[ ${#failed[@]} = 0 ] || exit 1
[ ${#missed[@]} = 0 ] || [ "${CI:-}" != true ] || exit 1
