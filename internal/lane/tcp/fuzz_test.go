package tcp

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

var ctx = context.Background()

// nodes are two nodes with the lane, and the connection from the first to the
// second.
func nodes(t testing.TB) (*Lane, *control.Peer) {
	dir, err := os.MkdirTemp("", "nl")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	opts := []control.Option{control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"), control.WithLogger(slog.New(slog.DiscardHandler))}
	a, err := control.Listen(ctx, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	b, err := control.Listen(ctx, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	l, err := New(a)
	require.NoError(t, err)
	_, err = New(b)
	require.NoError(t, err)
	p, err := a.Peer(ctx, b.WorkerID())
	require.NoError(t, err)
	return l, p
}

var geo = ring.Geometry{SlotSize: 64, Slots: 16, Producers: 1}

// frames are honest messages of frames.
func frames(t testing.TB, n int) []byte {
	seg, err := shm.NewHeap(geo.SegmentSize())
	require.NoError(t, err)
	r, err := ring.Format(seg.Bytes(), geo)
	require.NoError(t, err)
	s := ring.Session{Tag: 1}
	x := r.Exporter(s, nil)
	p := r.Producer(s, nil)
	for i := range n {
		b, err := p.Reserve(10 + i)
		require.NoError(t, err)
		require.NoError(t, p.Commit(len(b), ring.Data))
	}
	p.End(ring.Finalized)
	out, _ := x.Append(binary.LittleEndian.AppendUint64(nil, 5), 1<<16)
	return out
}

// FuzzStreamData: what comes as stream_data ends its own session at worst, and
// what the receiver reads of it lies in its ring.
func FuzzStreamData(f *testing.F) {
	l, peer := nodes(f)
	f.Add(frames(f, 0))
	f.Add(frames(f, 3))
	f.Add(frames(f, 1)[:30])
	f.Add([]byte{5})
	f.Fuzz(func(t *testing.T, b []byte) {
		failed := 0
		end, _, err := l.Accept(lane.Request{Peer: peer, Outlet: 5, Geometry: geo, Fail: func(error) { failed++ }})
		require.NoError(t, err)
		defer end.Release(false, 0)
		before := l.Refused()
		for range 2 { // the second finds the ring as the first has left it
			l.serveData(ctx, peer, control.Message{Payload: b})
		}
		if len(b) < dataHeader || binary.LittleEndian.Uint64(b) != 5 {
			require.Equal(t, before+2, l.Refused())
		}
		require.LessOrEqual(t, failed, 1)
		c := end.Ring.Consumer(end.Session, nil)
		for range 2 * geo.Slots {
			fr, ok := c.Next()
			if !ok {
				break
			}
			require.LessOrEqual(t, len(fr.Data), geo.MaxFrame())
			c.Release()
		}
	})
}

// FuzzStreamCredit: what comes as stream_credit ends its own session at worst.
func FuzzStreamCredit(f *testing.F) {
	l, peer := nodes(f)
	credit := func(outlet, pos, arrived uint64) []byte {
		b := binary.LittleEndian.AppendUint64(nil, outlet)
		b = binary.LittleEndian.AppendUint64(b, pos)
		return binary.LittleEndian.AppendUint64(b, arrived)
	}
	f.Add(credit(5, 1, 1))
	f.Add(credit(5, 1<<40, 1<<50))
	f.Add(credit(5, 0, ^uint64(0)))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		end, err := l.Connect(lane.Request{Peer: peer, Outlet: 5, Geometry: geo, Fail: func(error) {}}, lane.Reply{Session: ring.Session{Tag: 1}})
		require.NoError(t, err)
		p := end.Ring.Producer(end.Session, end.Wake)
		l.serveCredit(ctx, peer, control.Message{Payload: b})
		for range 2 * geo.Slots { // never more than there is room for
			if _, err := p.Reserve(8); err != nil {
				break
			}
			require.NoError(t, p.Commit(8, ring.Data))
		}
		p.Seal()
		end.Release(false, p.Position())
	})
}
