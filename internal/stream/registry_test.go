package stream

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/internal/lane/local"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

var ctx = context.Background()

// registry is one on a node of its own, with the lane local alone.
func registry(t testing.TB) *Registry {
	dir, err := os.MkdirTemp("", "nr")
	require.NoError(t, err)
	n, err := control.Listen(ctx, control.WithDir(dir), control.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	g, err := New(Config{Node: n, Lanes: []lane.Lane{local.New()}, MaxStreams: 64, MaxMemory: 64 << 20, Logger: n.Logger()})
	require.NoError(t, err)
	t.Cleanup(func() {
		g.Close()
		n.Close()
		os.RemoveAll(dir)
	})
	return g
}

var payload = Payload{Codec: "fixed", Type: "uint64", Size: 8, Fingerprint: 1}

func anchor(t testing.TB, g *Registry, edit func(*CreateOptions)) *Anchor {
	opt := CreateOptions{Payload: payload, Geometry: ring.Geometry{SlotSize: 32, Slots: 16}, MaxSenders: 1}
	if edit != nil {
		edit(&opt)
	}
	a, err := g.Create(opt)
	require.NoError(t, err)
	return a
}

// next waits for the next event.
func next(t testing.TB, a *Anchor) Event {
	for {
		ev, ok, err := a.Next()
		require.NoError(t, err)
		if ok {
			return ev
		}
		require.NoError(t, a.Wait(ctx))
	}
}

// Frames in a shared ring that are no member's are passed over and counted, and
// the members' flow on.
func TestConf_31_StrangersInASharedRing(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, func(o *CreateOptions) { o.Shared, o.OneRing, o.MaxSenders = true, true, 2 })
	o, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	require.Equal(t, Attached, next(t, a).Kind)
	require.True(t, a.pool.col.Admit(2, 9))
	stranger, err := o.end.Ring.Claimer(o.end.Session, 2, 9, nil)
	require.NoError(t, err)
	a.pool.col.Retract(2)
	for _, c := range []*ring.Claimer{stranger, stranger, o.C} {
		v := uint64(5)
		require.NoError(t, ring.PutShared(c, &v))
	}
	require.Equal(t, Data, next(t, a).Kind)
	a.Release()
	require.Equal(t, uint64(2), g.Stats().Refused)
	_, ok, err := a.Next()
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, a.Close())
	require.Equal(t, uint64(2), g.Stats().Refused, "a count never falls")
}

// What the options check says names the value.
func TestOptionsThatCannotBe(t *testing.T) {
	g := registry(t)
	for _, c := range []struct {
		name string
		edit func(*CreateOptions)
		want error
		says string
	}{
		{"no senders", func(o *CreateOptions) { o.MaxSenders = 0 }, fault.ErrConfig, "0 senders"},
		{"too many senders", func(o *CreateOptions) { o.MaxSenders = 1 << 20 }, fault.ErrConfig, "1048576"},
		{"negative attach timeout", func(o *CreateOptions) { o.AttachTimeout = -1 }, fault.ErrConfig, "timeout"},
		{"negative message timeout", func(o *CreateOptions) { o.MessageTimeout = -1 }, fault.ErrConfig, "timeout"},
		{"slots", func(o *CreateOptions) { o.Geometry.Slots = 17 }, fault.ErrConfig, "17"},
		{"slot size", func(o *CreateOptions) { o.Geometry.SlotSize = 33 }, fault.ErrConfig, "33"},
		{"slot too small for the value", func(o *CreateOptions) { o.Payload.Size = 64 }, fault.ErrConfig, "64"},
		{"memory", func(o *CreateOptions) { o.Geometry.Slots = 1 << 22 }, fault.ErrLimit, "67108864"},
		{"lane", func(o *CreateOptions) { o.Lanes = []string{"pigeon"} }, fault.ErrLaneUnavailable, "pigeon"},
	} {
		opt := CreateOptions{Payload: payload, Geometry: ring.Geometry{SlotSize: 32, Slots: 16}, MaxSenders: 1}
		c.edit(&opt)
		_, err := g.Create(opt)
		require.ErrorIs(t, err, c.want, c.name)
		require.ErrorContains(t, err, c.says, c.name)
	}
	require.Zero(t, g.Stats().Anchors)
}

// The attach timer fires for its own arming only.
func TestAttachTimer(t *testing.T) {
	fired := make(chan uint64, 4)
	x := attachTimer{d: time.Millisecond}
	x.arm(func(turn uint64) { fired <- turn })
	require.Equal(t, x.turn, <-fired)
	x = attachTimer{d: time.Hour}
	x.arm(func(turn uint64) { fired <- turn })
	old := x.turn
	x.pause()
	require.NotEqual(t, old, x.turn, "a firing that was under way would count")
	require.Nil(t, x.timer)
	x = attachTimer{}
	x.arm(func(turn uint64) { fired <- turn })
	require.Nil(t, x.timer, "0 is for ever")
}

// A guard lets the last to leave, or who closes it when nobody is in, release.
func TestGuard(t *testing.T) {
	var g guard
	require.True(t, g.enter())
	require.True(t, g.enter())
	require.False(t, g.exit())
	require.False(t, g.close(), "one call is under way")
	require.False(t, g.idle())
	require.False(t, g.enter())
	require.False(t, g.exit(), "of two, one is left")
	require.True(t, g.exit())
	require.True(t, g.idle())
	var idle guard
	require.True(t, idle.close())
	require.False(t, idle.enter())
	require.True(t, idle.exit())
}

// FuzzMessages: what peers send to the handlers of the stream protocol causes
// errors and counts, and never harms a stream.
func FuzzMessages(f *testing.F) {
	g := registry(f)
	n, err := control.Listen(ctx, control.WithDir(f.TempDir()), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"), control.WithLogger(g.log))
	require.NoError(f, err)
	f.Cleanup(func() { n.Close() })
	peer, err := g.node.Dial(ctx, n.TCPAddr())
	require.NoError(f, err)
	a := anchor(f, g, func(o *CreateOptions) { o.Shared, o.MaxSenders = true, 4 })
	o, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(f, err)
	h := a.Handle()
	for _, m := range []proto.Message{
		&wire.AttachRequest{Handle: h[:], Outlet: 1, Codec: "fixed", Payload: 8, Fingerprint: 1, Offers: []*wire.Offer{{Lane: "local"}}},
		&wire.Cancel{Outlet: 1, Reason: "because", Stop: true},
		&wire.End{Outlet: 1, Kind: uint32(ring.Detached), InRing: true},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		for what := range uint8(4) {
			f.Add(what, b)
		}
	}
	f.Fuzz(func(t *testing.T, what uint8, b []byte) {
		msg := control.Message{Payload: b}
		switch what % 4 {
		case 0:
			resp, err := g.serveAttach(ctx, peer, msg)
			if err == nil {
				lane.CloseFDs(resp.FDs)
			}
		case 1:
			_, err := g.serveEnd(ctx, peer, msg)
			require.NoError(t, err)
		case 2:
			g.serveEnded(ctx, peer, msg)
		case 3:
			g.serveCancel(ctx, peer, msg)
		}
		require.NoError(t, o.Progress(), "another's session was ended")
	})
}

// A stream that is stopped while a sender attaches ends when that attach has failed,
// although there is no session that could tell of it.
func TestStopDuringAnAttachThatFails(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, nil)
	in := &Inbound{a: a}
	require.NoError(t, a.take(in))
	require.NoError(t, a.Stop(ctx))
	_, ok, err := a.Next()
	require.NoError(t, err)
	require.False(t, ok, "it ended under an attach")
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	waited := make(chan error, 1)
	go func() { waited <- a.Wait(ctx) }()
	in.detach()
	require.NoError(t, <-waited, "it is not woken")
	require.Equal(t, Cancelled, next(t, a).Kind)
}

// A detach comes twice, by the ring and by the control message, which is answered when
// the place is free: the sender's next attach must find it.
func TestTheSecondDetachFindsThePlaceFree(t *testing.T) {
	a := anchor(t, registry(t), nil)
	for range 300000 {
		in := &Inbound{a: a}
		require.NoError(t, a.take(in))
		var begun atomic.Bool
		first := make(chan struct{})
		go func() {
			begun.Store(true)
			in.detach()
			close(first)
		}()
		for !begun.Load() {
			runtime.Gosched()
		}
		in.detach()
		next := &Inbound{a: a}
		require.NoError(t, a.take(next))
		next.detach()
		<-first
	}
}

// An attach that meets the end of its stream leaves no member in the shared ring: a
// stream that was stopped would wait for it for ever.
func TestAnAttachThatIsTooLateLeavesNoMember(t *testing.T) {
	a := anchor(t, registry(t), func(o *CreateOptions) { o.Shared, o.OneRing, o.MaxSenders = true, true, 2 })
	in := &Inbound{a: a, key: inKey{outlet: 7}, lane: "local", started: time.Now()}
	require.NoError(t, a.take(in))
	_, err := a.connect(in, local.New(), nil)
	require.NoError(t, err)
	require.NoError(t, a.Stop(ctx))
	require.ErrorIs(t, a.admit(in), fault.ErrCancelled)
	require.Equal(t, Cancelled, next(t, a).Kind)
	require.Zero(t, a.pool.attached())
}

// A claim in a shared ring that Close has given up is no misuse of its owner's.
func TestCommitAfterCloseInASharedRing(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, func(o *CreateOptions) { o.Shared, o.OneRing, o.MaxSenders = true, true, 2 })
	o, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	_, err = o.Reserve(8)
	require.NoError(t, err)
	require.NoError(t, o.Close())
	require.ErrorIs(t, o.Commit(8, ring.Data), fault.ErrClosed)
	require.Equal(t, Attached, next(t, a).Kind)
	require.Equal(t, Dropped, next(t, a).Kind)
}

// An End that waits until everything has arrived does not wait for a receiver that has
// cancelled or closed meanwhile, nor for whoever closes the sender.
func TestEndDoesNotWaitForNobody(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*Outlet)
		want error
	}{
		"cancelled":          {func(o *Outlet) { o.told(&wire.Cancel{Reason: "enough"}) }, fault.ErrCancelled},
		"receiver closed":    {func(o *Outlet) { o.told(&wire.Cancel{Gone: true}) }, fault.ErrPeerDead},
		"sender closed":      {func(o *Outlet) { o.Close() }, fault.ErrClosed},
		"stopped and closed": {func(o *Outlet) { o.told(&wire.Cancel{Stop: true}); o.Close() }, fault.ErrCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			g := registry(t)
			o, err := g.Attach(ctx, anchor(t, g, nil).Handle(), AttachOptions{Payload: payload})
			require.NoError(t, err)
			waits := make(chan struct{})
			o.end.Flush = func(ctx context.Context) error { // as over a network that brings no answer
				close(waits)
				<-ctx.Done()
				return ctx.Err()
			}
			limit, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- o.End(limit, ring.Finalized) }()
			<-waits
			c.end(o)
			require.ErrorIs(t, <-done, c.want)
			require.NoError(t, limit.Err(), "it waited until its own context ended")
		})
	}
}

// A consumer that learns of a cancellation before Cancel has told all senders tells
// them the same.
func TestTheConsumerIsFasterThanCancel(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, nil)
	o, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	require.Equal(t, Attached, next(t, a).Kind)
	a.mu.Lock()
	a.state, a.reason = cancelled, "enough" // the first half of Cancel
	a.mu.Unlock()
	a.wake()
	require.Equal(t, Cancelled, next(t, a).Kind)
	<-o.Done()
	var why *fault.CancelError
	require.ErrorAs(t, o.Err(), &why)
	require.Equal(t, "enough", why.Reason)
}

// The first frame of a member of a shared ring comes behind its Attached, however late
// the consumer looks at who has attached; and of a member whose attach has failed
// nothing comes at all.
func TestAttachedComesBeforeFramesOfASharedRing(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, func(o *CreateOptions) { o.Shared, o.OneRing, o.MaxSenders = true, true, 3 })
	first, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	require.Equal(t, Attached, next(t, a).Kind)
	send := func(o *Outlet) {
		v := uint64(5)
		require.NoError(t, ring.PutShared(o.C, &v))
	}
	send(first)
	require.Equal(t, Data, next(t, a).Kind)
	a.Release()

	second, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	send(second)
	a.signal.Store(false) // the consumer looked just before that
	ev, ok, err := a.Next()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, Event{Kind: Attached, Sender: second.Sender()}, ev)
	ev = next(t, a)
	require.Equal(t, Data, ev.Kind)
	require.Equal(t, second.Sender(), ev.Sender)
	a.Release()

	in := &Inbound{a: a, key: inKey{outlet: 7}, lane: "local", started: time.Now()}
	require.NoError(t, a.take(in))
	_, err = a.connect(in, local.New(), nil)
	require.NoError(t, err)
	in.leave(Dropped, fault.ErrPeerDead) // it was let in no further
	send(first)
	ev = next(t, a)
	require.Equal(t, Data, ev.Kind)
	require.Equal(t, first.Sender(), ev.Sender)
}

// A sender is told of a cancellation also when its lane finds the ring closed, and says
// that it has failed, before it has been told.
func TestCancelTellsAlsoOverALaneThatFails(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, nil)
	o, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	in := a.sessions()[0]
	in.c = in.end.Ring.Consumer(in.end.Session, func(ring.Attention) {
		in.leave(TransportError, fault.ErrTransport) // as a reader that finds the ring closed
	})
	o.P.Arm(shm.Doorbell)
	require.NoError(t, a.Cancel("enough"))
	require.NotNil(t, in.gone.Load())
	require.ErrorIs(t, o.Err(), fault.ErrCancelled)
}

// An End whose connection is lost tells how much may be lost with it, also when it is
// the lane that notices first.
func TestEndTellsWhatIsLost(t *testing.T) {
	g := registry(t)
	o, err := g.Attach(ctx, anchor(t, g, nil).Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	v := uint64(5)
	for range 3 {
		require.NoError(t, ring.Put(o.P, &v))
	}
	o.end.Landed = func() uint64 { return 1 }
	o.end.Flush = func(context.Context) error { return control.ErrConnLost }
	err = o.End(ctx, ring.Finalized)
	require.ErrorIs(t, err, fault.ErrPeerDead)
	var lost *LostError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, uint64(2), lost.Slots)
}

// An attach that meets the end of a shared ring is told of that, and not of too many
// senders.
func TestAttachToASharedRingThatHasClosed(t *testing.T) {
	a := anchor(t, registry(t), func(o *CreateOptions) { o.Shared, o.OneRing, o.MaxSenders = true, true, 2 })
	join := func() error {
		in := &Inbound{a: a, key: inKey{outlet: 7}, lane: "local", started: time.Now()}
		if err := a.take(in); err != nil {
			return nil
		}
		if a.pool != nil {
			require.NoError(t, a.Close()) // between the two
		}
		_, err := a.connect(in, local.New(), nil)
		return err
	}
	require.NoError(t, join())
	require.ErrorIs(t, join(), fault.ErrClosed)
}

// closing is a shared ring whose stream is closed while a sender joins.
type closing struct {
	lane.Shared
	a *Anchor
}

func (c closing) Join(req lane.Request, record int, generation uint32) (lane.Reply, error) {
	c.a.Close()
	return c.Shared.Join(req, record, generation)
}

func TestJoinOfASharedRingThatCloses(t *testing.T) {
	g := registry(t)
	a := anchor(t, g, func(o *CreateOptions) { o.Shared, o.OneRing, o.MaxSenders = true, true, 2 })
	o, err := g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.NoError(t, err)
	require.NoError(t, o.End(ctx, ring.Detached))
	a.pool.shared = closing{a.pool.shared, a}
	_, err = g.Attach(ctx, a.Handle(), AttachOptions{Payload: payload})
	require.ErrorIs(t, err, fault.ErrClosed)
}
