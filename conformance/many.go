package conformance

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/wire"
)

// shared makes a stream for several senders, each with a ring of its own unless
// the lane says otherwise.
func shared(e *Env, opts ...novastream.CreateOption) *novastream.Receiver[Rec] {
	if !e.Lane.OneRing {
		opts = append([]novastream.CreateOption{novastream.Shared(8)}, opts...)
	}
	return e.Create(opts...)
}

// ManySenders is case 28: per-sender FIFO; exactly one exit event each; a new
// sender id on reattach.
func ManySenders(e *Env) {
	rx := shared(e, novastream.Capacity(64))
	const senders, each = 6, 2000
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			tx, err := e.TX.Attach(e.Ctx, rx.Handle())
			if err != nil {
				return
			}
			if tx.SendAll(e.Ctx, 0, each) == nil {
				_ = tx.Finalize(e.Ctx)
			}
		})
	}
	attached, next, ended := map[novastream.SenderID]bool{}, map[novastream.SenderID]uint64{}, map[novastream.SenderID]bool{}
	for len(ended) < senders {
		f := e.Next(rx)
		switch f.Kind {
		case novastream.KindAttached:
			require.False(e, attached[f.Sender])
			attached[f.Sender] = true
		case novastream.KindData:
			require.True(e, attached[f.Sender])
			require.False(e, ended[f.Sender])
			require.Equal(e, next[f.Sender], f.Value.Seq)
			require.Equal(e, f.Value.Seq, f.Seq)
			require.True(e, f.Value.Whole())
			next[f.Sender]++
		case novastream.KindFinalized:
			require.False(e, ended[f.Sender], "two exits of sender %d", f.Sender)
			require.Equal(e, uint64(each), next[f.Sender])
			ended[f.Sender] = true
		default:
			require.Fail(e, "unexpected", "%v %v", f.Kind, f.Err)
		}
	}
	wg.Wait()
	again := e.Attach(rx.Handle())
	require.False(e, attached[again.ID()])
	_, err := rx.TryRecv()
	require.NoError(e, err)
	_, err = rx.TryRecv()
	require.ErrorIs(e, err, novastream.ErrEmpty)
	for range 7 {
		e.Attach(rx.Handle())
	}
	_, err = e.TX.Attach(e.Ctx, rx.Handle())
	require.ErrorIs(e, err, novastream.ErrTooManySenders)
}

// CrashLeavesOthers is case 29: one sender's crash leaves the others flowing,
// also when it died holding a claim.
func CrashLeavesOthers(e *Env) {
	rx := shared(e, novastream.Capacity(256))
	c := e.Child("claim", rx.Handle().String())
	require.Equal(e, "held", c.Line())
	tx := e.Attach(rx.Handle())
	e.Send(tx, 0, 100)
	c.Kill()
	go func() {
		if tx.SendAll(e.Ctx, 100, 3000) == nil {
			_ = tx.Finalize(e.Ctx)
		}
	}()
	next, dropped, fromDead := uint64(0), 0, 0
	for finalized := false; !finalized || dropped == 0; {
		f := e.Next(rx)
		switch {
		case f.Kind == novastream.KindData && f.Sender == tx.ID():
			require.Equal(e, next, f.Value.Seq)
			require.True(e, f.Value.Whole())
			next++
		case f.Kind == novastream.KindData:
			require.Zero(e, f.Value.Seq, "an uncommitted value was delivered")
			fromDead++
		case f.Kind == novastream.KindDropped:
			require.NotEqual(e, tx.ID(), f.Sender)
			dropped++
		case f.Kind == novastream.KindFinalized:
			require.Equal(e, tx.ID(), f.Sender)
			finalized = true
		default:
			require.Equal(e, novastream.KindAttached, f.Kind)
		}
	}
	require.Equal(e, uint64(3000), next)
	require.Equal(e, 1, dropped)
	if e.Carried() {
		require.LessOrEqual(e, fromDead, 1) // it may have died before it was carried
		return
	}
	require.Equal(e, 1, fromDead)
}

// StaleSession is case 31: frames and messages of a stale session are refused
// and counted.
func StaleSession(e *Env) {
	e.SkipFor(e.Lane.OneProcess, "within one process a session is a pointer, which cannot be stale")
	rx := e.Create()
	e.Attach(rx.Handle())
	e.Expect(rx, novastream.KindAttached)
	say := func(way Way, name string, b []byte) error {
		return e.TX.Say(e.Ctx, e.RX.Node().WorkerID(), way, name, b)
	}
	tcp := e.Lane.Lane == novastream.LaneTCP
	if tcp { // a session that was
		over := e.Create()
		tx := e.Attach(over.Handle())
		require.NoError(e, tx.Close())
		e.Expect(over, novastream.KindAttached)
		e.Expect(over, novastream.KindDropped)
		e.Until(func() bool { return e.RX.Stats().Inbound == 1 }, "the session is left")
		// Behind what the sender's side has said of its end, which may be late.
		require.ErrorIs(e, say(ByCall, "nobody", nil), control.ErrUnknownHandler)
	}
	before := e.RX.Stats().Refused
	m, err := proto.Marshal(&wire.End{Outlet: 1 << 40, Kind: 6, InRing: true})
	require.NoError(e, err)
	require.NoError(e, say(BySend, "stream_ended", m))
	require.NoError(e, say(BySend, "stream_ended", []byte{0xff}))
	want := before + 2
	if tcp {
		// Frames of that session, of ones that never were, and half a header.
		for outlet := range uint64(3) { // the second is that session's
			require.NoError(e, say(ByBulk, "stream_data", append(binary.LittleEndian.AppendUint64(nil, outlet*2), make([]byte, 64)...)))
		}
		require.NoError(e, say(ByBulk, "stream_data", make([]byte, 7)))
		want += 4
	}
	e.Until(func() bool { return e.RX.Stats().Refused >= want }, "not all was counted")
	require.Equal(e, want, e.RX.Stats().Refused)
	_, err = rx.TryRecv()
	require.ErrorIs(e, err, novastream.ErrEmpty)
}

// PeerRestarts is case 35: a peer that restarts: one Dropped per live stream, no
// credit leaks.
func PeerRestarts(e *Env) {
	const streams, slots = 3, 16
	instance := uuid.NewString() // it comes back as the same node
	for range 3 {
		var rxs []*novastream.Receiver[Rec]
		args := []string{instance}
		for range streams {
			rx := e.Create(novastream.Capacity(slots))
			rxs = append(rxs, rx)
			args = append(args, rx.Handle().String())
		}
		c := e.Child("fill-all", args...)
		for _, rx := range rxs {
			require.Equal(e, uint64(slots), c.Number(), "a credit of an earlier life is missing")
			e.Expect(rx, novastream.KindAttached)
			e.ExpectData(rx, 0, 1)
		}
		c.Kill()
		for _, rx := range rxs {
			next := uint64(1)
			for f := e.Next(rx); f.Kind != novastream.KindDropped; f = e.Next(rx) {
				require.Equal(e, novastream.KindData, f.Kind)
				require.Equal(e, next, f.Value.Seq)
				next++
			}
			if !e.Carried() { // what a connection carried died with it
				require.Equal(e, uint64(slots), next)
			}
			if e.Lane.OneRing {
				_, err := rx.TryRecv()
				require.ErrorIs(e, err, novastream.ErrEmpty, "more than one Dropped")
			}
			e.ExpectEnd(rx)
			require.NoError(e, rx.Close())
		}
	}
	e.Until(func() bool {
		s := e.RX.Stats()
		return s.Inbound == 0 && s.Memory == 0 && s.Senders == 0
	}, "sessions are left")
}

// ThousandCycles is case 43: a thousand create-attach-finalize cycles: gauges at
// their base, and no goroutine, descriptor, thread or mapping left.
func ThousandCycles(e *Env) {
	cycle := func() {
		rx, err := novastream.Create[Rec](e.RX, e.Options(novastream.Capacity(64))...)
		require.NoError(e, err)
		tx, err := e.TX.Attach(e.Ctx, rx.Handle())
		require.NoError(e, err)
		e.Send(tx, 0, 3)
		require.NoError(e, tx.Finalize(e.Ctx))
		e.Expect(rx, novastream.KindAttached)
		e.ExpectData(rx, 0, 3)
		e.Expect(rx, novastream.KindFinalized)
		require.NoError(e, rx.Close())
	}
	settled := func() bool { return e.RX.Stats().Inbound == 0 && e.TX.Stats().Outlets == 0 }
	e.Warm()
	var before Both
	for range 3 { // the most of several looks: one may come while a segment is being prepared
		for range 50 {
			cycle()
		}
		e.Until(settled, "sessions are left")
		before = before.Most(e.Held())
	}
	for range 1000 {
		cycle()
	}
	e.Until(settled, "sessions are left")
	e.Back(before)
	s := e.RX.Stats()
	require.Zero(e, s.Anchors+s.Inbound+s.Senders)
	require.Zero(e, s.Memory)
}

// LentSlots is case 45: a slot lent to the consumer is not reused before it is
// released, also when the sender crashed.
func LentSlots(e *Env) {
	e.SkipFor(e.Lane.OneRing, "Borrow serves rings of one sender")
	rx := e.Create(novastream.Capacity(16))
	if e.Lane.OneProcess {
		tx := e.Attach(rx.Handle())
		n := e.Fill(tx)
		e.Expect(rx, novastream.KindAttached)
		loan := borrow(e, rx, 16)
		v := MakeRec(n)
		require.ErrorIs(e, tx.TrySend(&v), novastream.ErrFull)
		_, err := rx.Borrow(1)
		require.ErrorIs(e, err, novastream.ErrMisuse)
		check(e, loan)
		require.NoError(e, tx.Close())
		check(e, loan)
		require.NoError(e, rx.Close())
		check(e, loan)
		loan.Release()
		return
	}
	c := e.Child("flood", rx.Handle().String())
	c.Number()
	e.Expect(rx, novastream.KindAttached)
	loan := borrow(e, rx, 16)
	check(e, loan)
	c.Kill()
	e.Until(func() bool { return e.RX.Stats().Senders == 0 }, "its death is not noticed")
	check(e, loan)
	require.NoError(e, rx.Close())
	check(e, loan)
	loan.Release()
	e.Until(func() bool { return e.RX.Stats().Memory == 0 }, "memory is held")
}

func borrow(e *Env, rx *novastream.Receiver[Rec], n int) (loan novastream.Loan[Rec]) {
	e.Until(func() bool {
		var err error
		loan, err = rx.Borrow(n)
		if err != nil && !errors.Is(err, novastream.ErrEmpty) {
			require.NoError(e, err)
		}
		return err == nil
	}, "nothing to borrow")
	return loan
}

func check(e *Env, loan novastream.Loan[Rec]) {
	require.Nil(e, loan.At(loan.Len()))
	for i := range loan.Len() {
		require.Equal(e, uint64(i), loan.At(i).Seq)
		require.True(e, loan.At(i).Whole())
	}
}

// Hostile is case 46: a hostile peer that scribbles over every byte it can write
// causes typed errors on its own stream only.
func Hostile(e *Env) {
	e.SkipFor(e.Lane.Lane != novastream.LaneShm, "only a shared segment can be scribbled on")
	rx, sibling := e.Create(), e.Create()
	tx := e.Attach(sibling.Handle())
	c := e.Child("scribble", rx.Handle().String())
	require.NotZero(e, c.Number())
	c.Go()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f, err := rx.TryRecv()
			switch {
			case errors.Is(err, errEOF) || errors.Is(err, novastream.ErrClosed):
				return
			case err != nil && !errors.Is(err, novastream.ErrEmpty):
				e.Errorf("an error without a name: %v", err)
				return
			case f.Kind == novastream.KindTransportError && !errors.Is(f.Err, novastream.ErrCorrupt) && !errors.Is(f.Err, novastream.ErrTransport):
				e.Errorf("a failure without a name: %v", f.Err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	require.Equal(e, "scribbled", c.Line())
	e.Send(tx, 0, 1000)
	require.NoError(e, tx.Finalize(e.Ctx))
	e.Expect(sibling, novastream.KindAttached)
	e.ExpectData(sibling, 0, 1000)
	e.Expect(sibling, novastream.KindFinalized)
	c.Kill()
	close(stop)
	<-done
}

// SegmentReuse is case 60: a segment is used again only after the last frame
// lent from it is released; no frame, wake or position of its earlier session
// reaches the new one.
func SegmentReuse(e *Env) {
	e.SkipFor(e.Lane.OneRing, "a shared ring serves one stream")
	var held novastream.Loan[Rec]
	for round := range uint64(40) {
		rx := e.Create(novastream.Capacity(16))
		tx := e.Attach(rx.Handle())
		n := e.Fill(tx)
		require.Equal(e, uint64(16), n, "round %d", round)
		e.Expect(rx, novastream.KindAttached)
		if round == 5 {
			held = borrow(e, rx, 16)
			continue // its end waits for the release
		}
		done := make(chan error, 1)
		go func() { done <- tx.Finalize(e.Ctx) }()
		e.ExpectData(rx, 0, n)
		e.Expect(rx, novastream.KindFinalized)
		require.NoError(e, <-done)
		_, err := rx.TryRecv()
		require.ErrorIs(e, err, errEOF)
		if held.Len() > 0 {
			check(e, held)
		}
	}
	held.Release()
}
