#!/usr/bin/env bash
# Measures the lane rdma: `make bench-rdma`. Over verbs next to perftest, in one guest
# with soft-RoCE; and over soft next to the lane tcp, on this machine. Arguments are go
# test's, as -test.v.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
reason=$("$here/packages.sh") || { echo "bench-rdma: DID NOT RUN: $reason"; exit 1; }
NOVA_RDMA_IMAGE=$("$here/image.sh")
export NOVA_RDMA_IMAGE
bin=.cache/rdma/bin/bench.test
go test -c -tags verbs -o "$bin" ./bench
# Without a clock that programs can read by themselves, each look at it would cost what a
# small message does; the kernel does not trust this one by itself.
"$here/guest.sh" -t 900 -m 2048 -k tsc=reliable -e NOVA_RDMA_PROVIDER=verbs -e NOVA_RDMA_DEVICE=rxe0/1/1 \
  "$bin" -test.run '^$' -test.bench 'Perftest$' -test.benchtime 1x -test.timeout 890s "$@"
echo "soft next to tcp, on this machine:"
go test -run '^$' -bench 'RDMA$/values' -benchtime 1x ./bench
