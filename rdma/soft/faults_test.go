package soft_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// faultRounds is how many faults TestRandomFaults draws.
const faultRounds = 150

// Whatever faults come, and whenever: what completed with Success has arrived, in
// order and whole; the first request that failed has a reason, all behind it are
// flushed, and none is told of twice. The seed is printed, and sets it all but the
// timing.
func TestRandomFaults(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		t.Run(fmt.Sprintf("tcp=%v", tcp), func(t *testing.T) {
			opts := []soft.Option{soft.WithSeed(42)}
			rounds := faultRounds
			if tcp {
				opts = append(opts, soft.OverTCP())
			}
			if testing.Short() {
				rounds /= 10
			}
			ends := map[rdma.Status]int{}
			for seed := range uint64(rounds) {
				ends[faultRound(t, seed, opts)]++
			}
			t.Logf("how %d rounds ended: %v", rounds, ends)
		})
	}
}

// faultRound writes numbered words through a fault, and returns how the first
// request that did not succeed ended.
func faultRound(t *testing.T, seed uint64, opts []soft.Option) rdma.Status {
	rng := rand.New(rand.NewPCG(seed, 7))
	p := soft.New(append(opts, soft.WithSeed(seed))...)
	a, err := newSide(p, 1<<16)
	require.NoError(t, err)
	defer a.dev.Close()
	b, err := newSide(p, 1<<16)
	require.NoError(t, err)
	defer b.dev.Close()
	opt := rdma.ConnectOptions{Timeout: 4 * time.Millisecond, RetryCount: 6}
	require.NoError(t, a.qp.Connect(context.Background(), b.qp.Address(), opt))
	require.NoError(t, b.qp.Connect(context.Background(), a.qp.Address(), opt))

	const words, batch = 400, 20
	at := rng.IntN(words)
	for n := 0; n < words; n += batch {
		if at >= n && at < n+batch {
			strike(rng, &a, &b)
		}
		wrs := make([]rdma.SendWR, batch)
		for i := range wrs {
			pos := n + i
			binary.NativeEndian.PutUint64(a.mem.Bytes()[8*pos:], uint64(pos+1))
			wrs[i] = rdma.SendWR{
				ID: uint64(pos), Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(a.mem, 8*pos, 8),
				Remote: b.mem.Addr() + uint64(8*pos), RKey: b.mem.RKey(),
			}
			if pos%16 == 5 {
				wrs[i].Op, wrs[i].Local.Addr = rdma.OpRead, a.mem.Addr()+1<<15
			}
		}
		k, err := a.qp.PostSend(wrs)
		if err != nil {
			require.ErrorIs(t, err, rdma.ErrDeviceGone, "seed %d", seed)
			return rdma.Fatal
		}
		require.Equal(t, batch, k)
		failed := rdma.Success
		for i, c := range a.poll(t, batch, "seed ", seed) {
			require.EqualValues(t, n+i, c.ID, "seed %d", seed)
			switch {
			case failed != rdma.Success:
				require.Equal(t, rdma.Flushed, c.Status, "seed %d", seed)
			case c.Status != rdma.Success:
				failed = c.Status
			case wrs[i].Op == rdma.OpWrite:
				arrived(t, &b, n+i, seed)
			}
		}
		if failed != rdma.Success {
			require.Equal(t, rdma.Error, a.qp.State())
			return failed
		}
	}
	return rdma.Success
}

// arrived checks a word of which the writer knows that it has arrived.
func arrived(t *testing.T, b *side, pos int, seed uint64) {
	require.EqualValues(t, pos+1, load(b.mem, 8*pos), "seed %d, word %d", seed, pos)
}

// strike sets a random fault on a random side.
func strike(rng *rand.Rand, a, b *side) {
	s := a
	if rng.IntN(2) == 0 {
		s = b
	}
	d := s.dev.(*soft.Device)
	switch rng.IntN(9) {
	case 0:
		d.Lose(rng.Float64() / 4)
	case 1:
		d.Delay(time.Duration(rng.IntN(500)) * time.Microsecond)
	case 2:
		d.Cut(time.Duration(1+rng.IntN(40)) * time.Millisecond)
	case 3:
		d.Cut(0)
	case 4:
		b.dev.(*soft.Device).Revoke(b.mem)
	case 5:
		d.Remove()
	case 6:
		d.PortDown()
		time.AfterFunc(time.Duration(rng.IntN(10))*time.Millisecond, d.PortUp)
	case 7:
		b.qp.Close()
	case 8:
		time.AfterFunc(time.Duration(rng.IntN(300))*time.Microsecond, func() { b.mem.Close() })
	}
}
