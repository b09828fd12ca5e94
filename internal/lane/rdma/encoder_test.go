package rdma_test

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// half is half of it random, so that encoded ranges of it take about half the room.
func half(i uint64) rec {
	r := rand.New(rand.NewPCG(i, 1))
	return rec{Seq: i, Pad: [6]uint64{r.Uint64(), r.Uint64(), r.Uint64()}}
}

// More encoded bytes are under way than the sender keeps room for: it waits for
// the device, and nothing that is still to be sent is overwritten.
func TestEncodedWaitsForTheDevice(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	w := &world{t: t, dir: dir}
	w.open()
	const slots = 1 << 14 // a megabyte
	rx, err := novastream.Create[rec](w.rx.s, novastream.Capacity(slots), novastream.Compression(novastream.CompressionS2))
	require.NoError(t, err)
	defer rx.Close()
	tx, err := novastream.Attach[rec](ctx, w.tx.s, rx.Handle(), novastream.Lanes(novastream.LaneRDMA), novastream.Compression(novastream.CompressionS2))
	require.NoError(t, err)
	defer tx.Close()
	require.Equal(t, novastream.KindAttached, next(t, ctx, rx).Kind)
	sent, got := uint64(0), uint64(0)
	for range 3 {
		w.tx.dev.Stall(true)
		for ; ; sent++ {
			v := half(sent)
			if err := tx.TrySend(&v); err != nil {
				require.ErrorIs(t, err, novastream.ErrFull)
				break
			}
		}
		wire := uint64(0)
		require.Eventually(t, func() bool { // nothing more is posted
			old := wire
			wire = tx.Stats().Wire
			return wire == old
		}, 20*time.Second, 20*time.Millisecond)
		w.tx.dev.Stall(false)
		for ; got < sent; got++ {
			f := next(t, ctx, rx)
			require.Equal(t, novastream.KindData, f.Kind, "%v", f.Err)
			require.Equal(t, half(got), f.Value)
		}
	}
	s := tx.Stats()
	require.Positive(t, s.Compressed)
	t.Logf("%d batches, %d compressed: %.3f of the payload on the wire", s.Batches, s.Compressed, float64(s.Wire)/float64(s.Payload))
	require.NoError(t, tx.Finalize(ctx))
}

func next(t *testing.T, ctx context.Context, rx *novastream.Receiver[rec]) novastream.Frame[rec] {
	f, err := rx.Recv(ctx)
	require.NoError(t, err)
	return f
}
