package conformance

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
)

// impostor is a node that says it is the sending side's, over a connection of its own.
func impostor(e *Env) *control.Peer {
	n, err := control.Listen(e.Ctx, control.WithoutUnix(),
		control.WithDiscovery(control.Static(e.RX.Node().Entry())), control.WithInstanceID(e.TX.Entry().Instance))
	require.NoError(e, err)
	e.Cleanup(func() { n.Close() })
	p, err := n.Dial(e.Ctx, "unix:"+e.RX.Node().SocketPath())
	require.NoError(e, err)
	return p
}

// TestHostile_Lies: a peer that lies in what it says, and not in the ring.
func TestHostile_Lies(t *testing.T) {
	overShm(t, func(e *Env) {
		for _, c := range []struct {
			name string
			lie  func(e *Env)
		}{
			{"the sessions of another", anothersSessions},
			{"an outlet twice", outletTwice},
			{"a segment's id twice", segmentTwice},
			{"sessions that nobody reads", unreadSessions},
			{"an offer of a million segments", hugeOffer},
		} {
			e.T.Run(c.name, func(t *testing.T) { c.lie(newEnv(t, e.Lane)) })
		}
	})
}

// anothersSessions: who claims another's worker id cannot end that one's sessions.
func anothersSessions(e *Env) {
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	p := impostor(e)
	for outlet := range uint64(20) {
		for _, end := range []*wire.End{{Outlet: outlet}, {Outlet: outlet, Kind: uint32(ring.Finalized), InRing: true}} {
			b, err := proto.Marshal(end)
			require.NoError(e, err)
			_, err = p.Call(e.Ctx, "stream_end", control.Message{Payload: b})
			require.NoError(e, err)
			require.NoError(e, p.Send(e.Ctx, "stream_ended", control.Message{Payload: b}))
		}
	}
	_, err := p.Call(e.Ctx, "nobody's", control.Message{}) // behind all of it
	require.ErrorIs(e, err, control.ErrUnknownHandler)
	require.Equal(e, 1, e.RX.Stats().Senders)
	e.Send(tx, 0, 10)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 10)
}

// outletTwice: a session's name cannot be used for a second one.
func outletTwice(e *Env) {
	n, err := control.Listen(e.Ctx, control.WithDir(e.Dir))
	require.NoError(e, err)
	defer n.Close()
	for i, k := range ringKinds[:3] {
		opts := []novastream.CreateOption{novastream.Capacity(64), novastream.Shared(4)}
		if k.producers > 1 {
			opts = append(opts, novastream.OneRing())
		}
		create := func() novastream.Handle {
			if k.bytes {
				rx, err := novastream.Create[[]byte](e.RX, opts...)
				require.NoError(e, err)
				e.Cleanup(func() { rx.Close() })
				return rx.Handle()
			}
			return CreateOn(e, e.RX, opts...).Handle()
		}
		h := create()
		s, err := rawAttach(e.Ctx, n, h, k, uint64(i+1))
		require.NoError(e, err)
		defer s.close()
		for range 10 {
			_, err = rawAttach(e.Ctx, n, h, k, uint64(i+1))
			require.ErrorIs(e, err, novastream.ErrMisuse)
		}
		require.Equal(e, i+1, e.RX.Stats().Senders)
	}
}

// segmentTwice: a receiver that gives each segment the same id makes the sender keep
// one of them.
func segmentTwice(e *Env) {
	n, err := control.Listen(e.Ctx, control.WithDir(e.Dir))
	require.NoError(e, err)
	e.Cleanup(func() { n.Close() })
	require.NoError(e, n.HandleInline("stream_attach", func(_ context.Context, _ *control.Peer, m control.Message) (control.Message, error) {
		var req wire.AttachRequest
		if err := proto.Unmarshal(m.Payload, &req); err != nil {
			return control.Message{}, err
		}
		return hostileAnswer(&req, &answer{edit: func(*wire.AttachReply, *kitFDs) {}})
	}))
	require.NoError(e, n.HandleInline("stream_end", func(context.Context, *control.Peer, control.Message) (control.Message, error) {
		return control.Message{}, nil
	}))
	require.NoError(e, n.HandleAMInline("stream_ended", func(context.Context, *control.Peer, control.Message) {}))
	h := handle.Make(uint64(n.WorkerID()), 0, 1)
	several := func() {
		var all []Sender
		for range 8 {
			tx, err := e.TX.Attach(e.Ctx, h)
			require.NoError(e, err)
			all = append(all, tx)
		}
		for _, tx := range all {
			require.NoError(e, tx.Finalize(e.Ctx))
		}
	}
	several()
	before := e.Held()
	for range 20 {
		several()
	}
	e.Back(before)
}

// unreadSessions: sessions that come and go are held until they are read, up to a
// bound that is told; what is held is read then, and there is room again.
func unreadSessions(e *Env) {
	rx := e.Create(novastream.Capacity(4), novastream.AttachTimeout(0))
	n := 0
	for ; ; n++ {
		tx, err := e.TX.Attach(e.Ctx, rx.Handle())
		if err != nil {
			require.ErrorIs(e, err, novastream.ErrLimit)
			require.ErrorContains(e, err, "read on")
			break
		}
		require.NoError(e, tx.Detach(e.Ctx))
		require.Less(e, n, 2000, "there is no bound")
	}
	for range n {
		e.Expect(rx, novastream.KindAttached)
		e.Expect(rx, novastream.KindDetached)
	}
	e.Attach(rx.Handle())
}

// hugeOffer: an offer is read as far as segments can be kept.
func hugeOffer(e *Env) {
	n, err := control.Listen(e.Ctx, control.WithDir(e.Dir))
	require.NoError(e, err)
	defer n.Close()
	p, err := n.Peer(e.Ctx, e.RX.Node().WorkerID())
	require.NoError(e, err)
	rx := e.Create()
	codec, size, print := ringKinds[0].payload()
	h := rx.Handle()
	b, err := proto.Marshal(&wire.AttachRequest{
		Handle: h[:], Outlet: 1, Codec: codec, Payload: uint32(size), Fingerprint: print,
		Offers: []*wire.Offer{{Lane: "shm", Data: make([]byte, 3<<20)}},
	})
	require.NoError(e, err)
	m, err := p.Call(e.Ctx, "stream_attach", control.Message{Payload: b})
	require.NoError(e, err)
	require.Len(e, m.FDs, 3)
}
