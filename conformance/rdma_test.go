package conformance

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/ring"
)

func TestConf_44_RDMAFailure(t *testing.T) { each(t, RDMAFailure) }

// TestBadInput_RDMA: a sender that breaks the protocol of the lane rdma has its own
// stream end with an error, and no other.
func TestBadInput_RDMA(t *testing.T) { each(t, hostileRDMA) }

func hostileRDMA(e *Env) {
	e.SkipFor(e.Lane.Lane != novastream.LaneRDMA, NotRDMA)
	quiet := e.Create()
	honest := e.Attach(quiet.Handle())
	e.Expect(quiet, novastream.KindAttached)
	n := e.RawNode()
	word := func(r *Raw, w uint64) []byte { return binary.LittleEndian.AppendUint64(nil, w) }
	for name, c := range map[string]struct {
		do   func(r *Raw) rdma.Status
		want rdma.Status
		err  error
	}{
		"key":     {func(r *Raw) rdma.Status { r.Key ^= 0x5555; return r.Frame(0) }, rdma.RemoteAccess, novastream.ErrTransport},
		"address": {func(r *Raw) rdma.Status { r.Remote -= 1 << 20; return r.Frame(0) }, rdma.RemoteAccess, novastream.ErrTransport},
		"length": {func(r *Raw) rdma.Status {
			at := r.Remote + uint64(r.Geometry.SegmentSize()) + 4096 - 8
			return r.Post(rdma.SendWR{Op: rdma.OpWrite, Remote: at, RKey: r.Key}, make([]byte, 16))
		}, rdma.RemoteAccess, novastream.ErrTransport},
		"immediate": {func(r *Raw) rdma.Status {
			return r.Post(rdma.SendWR{Op: rdma.OpWriteImm, Imm: 7 << 29, Remote: r.Remote, RKey: r.Key}, nil)
		}, rdma.Success, novastream.ErrTransport},
		"the receiver's immediate": {func(r *Raw) rdma.Status {
			return r.Post(rdma.SendWR{Op: rdma.OpWriteImm, Imm: 5 << 29, Remote: r.Remote, RKey: r.Key}, nil)
		}, rdma.Success, novastream.ErrTransport},
		"read": {func(r *Raw) rdma.Status {
			return r.Post(rdma.SendWR{Op: rdma.OpRead, Remote: r.Remote, RKey: r.Key}, make([]byte, 8))
		}, rdma.RemoteAccess, novastream.ErrTransport},
		"beyond the ring": {func(r *Raw) rdma.Status { return r.Announce(r.Word(17, 0)) }, rdma.Success, novastream.ErrCorrupt},
		"not there":       {func(r *Raw) rdma.Status { return r.Announce(r.Word(1, 0)) }, rdma.Success, novastream.ErrCorrupt},
		"backwards":       {func(r *Raw) rdma.Status { return r.Announce(r.Word(^uint64(0), 0)) }, rdma.Success, novastream.ErrCorrupt},
		"another session": {func(r *Raw) rdma.Status { r.Tag++; return r.Announce(r.Word(0, 0)) }, rdma.Success, novastream.ErrCorrupt},
		"no end":          {func(r *Raw) rdma.Status { return r.Announce(r.Word(0, ring.Data)) }, rdma.Success, novastream.ErrCorrupt},
		"ones":            {func(r *Raw) rdma.Status { return r.Announce(^uint64(0)) }, rdma.Success, novastream.ErrCorrupt},
		// Encoded ranges, which the lane with s2 has agreed to take, and the other has not.
		"encoded by what was not agreed to": {func(r *Raw) rdma.Status { return r.Encoded(2, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 9, 0, 0, 'x') }, rdma.Success, novastream.ErrCorrupt},
		"encoded, and is not":               {func(r *Raw) rdma.Status { return r.Encoded(0, 1, 2, 3) }, rdma.Success, novastream.ErrCorrupt},
		"encoded, of more than its slots":   {func(r *Raw) rdma.Status { return r.Encoded(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 'x') }, rdma.Success, novastream.ErrCorrupt},
		"encoded, cut short":                {func(r *Raw) rdma.Status { return r.Encoded(1, 100, 4<<2, 'a', 'b') }, rdma.Success, novastream.ErrCorrupt},
		"encoded, without a frame":          {func(r *Raw) rdma.Status { return r.Encoded(1, 8, 7<<2, 1, 2, 3, 4, 5, 6, 7, 8) }, rdma.Success, novastream.ErrCorrupt},
		"all of the region": {func(r *Raw) rdma.Status {
			b := make([]byte, 1<<15)
			for i := range b {
				b[i] = byte(i * 7)
			}
			for at := 0; at < r.Geometry.SegmentSize(); at += len(b) {
				part := b[:min(len(b), r.Geometry.SegmentSize()-at)]
				if s := r.Post(rdma.SendWR{Op: rdma.OpWrite, Remote: r.Remote + uint64(at), RKey: r.Key}, part); s != rdma.Success {
					return s
				}
			}
			return r.Post(rdma.SendWR{Op: rdma.OpWriteImm, Imm: 1 << 29, Remote: r.Remote + uint64(r.Geometry.SegmentSize()), RKey: r.Key}, word(r, r.Word(5, 0)))
		}, rdma.Success, novastream.ErrCorrupt},
	} {
		rx := e.Create(novastream.Capacity(16))
		r := n.Attach(rx.Handle()).Connect()
		require.Equal(e, c.want, c.do(r), name)
		e.Expect(rx, novastream.KindAttached)
		f := e.Next(rx)
		require.Equal(e, novastream.KindTransportError, f.Kind, name)
		require.ErrorIs(e, f.Err, c.err, name)
		e.ExpectEnd(rx)
	}
	// Messages by Nova RPC.
	rx := e.Create(novastream.Capacity(16))
	r := n.Attach(rx.Handle())
	for _, b := range [][]byte{nil, {rawVersion}, {9, 1, 0}, r.Place[:len(r.Place)-1], append(r.Place[:len(r.Place):len(r.Place)], 0), message(r.Outlet, []byte("nowhere"), uint64(8), uint64(1))} {
		require.Error(e, n.side.Call(e.Ctx, "rdma_connect", b), "%x", b)
	}
	for _, name := range []string{"rdma_hello", "rdma_failed", "rdma_lost"} {
		require.Error(e, n.side.Call(e.Ctx, name, []byte{rawVersion, 0xff}), name)
	}
	e.Send(honest, 0, 100)
	e.ExpectData(quiet, 0, 100)
	require.NoError(e, rx.Close())
	e.Until(func() bool { return e.RX.Stats().Inbound == 1 }, "a session is left")
}
