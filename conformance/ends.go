package conformance

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// DetachFull is case 8: detach with a full ring loses nothing.
func DetachFull(e *Env) {
	fullEnd(e, func(ctx context.Context, tx Sender) error { return tx.Detach(ctx) }, novastream.KindDetached)
}

// fullEnd ends a session whose ring is full while nobody reads.
func fullEnd(e *Env, end func(context.Context, Sender) error, kind novastream.Kind) {
	rx := e.Create(novastream.Capacity(64))
	tx := e.Attach(rx.Handle())
	n := e.Fill(tx)
	require.Equal(e, uint64(64), n)
	done := make(chan error, 1)
	go func() { done <- end(e.Ctx, tx) }()
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, n)
	e.Expect(rx, kind)
	require.NoError(e, <-done)
}

// FinalizedLast is case 9: Finalized comes after all data, nothing after it,
// then io.EOF for ever.
func FinalizedLast(e *Env) {
	rx := e.Create(novastream.Capacity(64))
	tx := e.Attach(rx.Handle())
	go func() {
		if tx.SendAll(e.Ctx, 0, 5000) == nil {
			_ = tx.Finalize(e.Ctx)
		}
	}()
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 5000)
	e.Expect(rx, novastream.KindFinalized)
	e.ExpectEnd(rx)
	v := MakeRec(1)
	e.Until(func() bool { return tx.Err() != nil }, "the sender is not told")
	require.ErrorIs(e, tx.TrySend(&v), novastream.ErrClosed)
	require.ErrorIs(e, tx.Finalize(e.Ctx), novastream.ErrClosed)
}

// TerminalsWhenFull is case 10: terminals arrive although the ring is full.
func TerminalsWhenFull(e *Env) {
	fullEnd(e, func(ctx context.Context, tx Sender) error { return tx.Finalize(ctx) }, novastream.KindFinalized)
	fullEnd(e, func(_ context.Context, tx Sender) error { return tx.Close() }, novastream.KindDropped)
}

// DropIsNotFinalize is case 11: a sender closed without finalize gives Dropped.
func DropIsNotFinalize(e *Env) {
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	e.Send(tx, 0, 3)
	require.NoError(e, tx.Close())
	require.NoError(e, tx.Close())
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 3)
	f := e.Expect(rx, novastream.KindDropped)
	require.ErrorIs(e, f.Err, novastream.ErrPeerDead)
	e.ExpectEnd(rx)
	v := MakeRec(1)
	require.ErrorIs(e, tx.TrySend(&v), novastream.ErrClosed)
}

// PanicDrops is case 12: a sender goroutine that panics gives exactly one
// Dropped, also from within a Slots loop.
func PanicDrops(e *Env) {
	for _, inLoop := range []bool{false, true} {
		if inLoop && e.Lane.OneRing {
			continue // Slots serves rings of the sender's own
		}
		rx := e.Create()
		tx := e.Attach(rx.Handle())
		tx.Panic(e.Ctx, inLoop)
		e.Expect(rx, novastream.KindAttached)
		e.ExpectData(rx, 0, 3)
		e.Expect(rx, novastream.KindDropped)
		e.ExpectEnd(rx)
	}
}

// Killed is case 13: a SIGKILLed sender gives Dropped.
func Killed(e *Env) {
	rx := e.Create()
	c := e.Child("send", rx.Handle().String(), "100")
	require.Equal(e, uint64(100), c.Number())
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 100)
	c.Kill()
	f := e.Expect(rx, novastream.KindDropped)
	require.ErrorIs(e, f.Err, novastream.ErrPeerDead)
	e.ExpectEnd(rx)
	e.Until(func() bool { return e.RX.Stats().Senders == 0 }, "a sender is left")
}

// KilledFull is case 14: SIGKILL behind a full ring: buffered frames first, then
// Dropped.
func KilledFull(e *Env) {
	rx := e.Create(novastream.Capacity(256))
	c := e.Child("fill", rx.Handle().String())
	n := c.Number()
	require.Equal(e, uint64(256), n)
	if e.Carried() {
		// What a connection still carries dies with the sender; wait until it has
		// arrived.
		e.Expect(rx, novastream.KindAttached)
		first := e.Expect(rx, novastream.KindData)
		require.True(e, first.Value.Whole())
		c.Kill()
		got := uint64(1)
		for {
			f := e.Next(rx)
			if f.Kind != novastream.KindData {
				require.Equal(e, novastream.KindDropped, f.Kind)
				break
			}
			require.Equal(e, got, f.Value.Seq)
			require.True(e, f.Value.Whole())
			got++
		}
		e.ExpectEnd(rx)
		return
	}
	c.Kill()
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, n)
	e.Expect(rx, novastream.KindDropped)
	e.ExpectEnd(rx)
}

// SoftErrors is case 17: a soft error is delivered in order and the stream goes
// on.
func SoftErrors(e *Env) {
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	long := strings.Repeat("all work and no play ", 12)
	e.Send(tx, 0, 2)
	require.NoError(e, tx.SoftError(e.Ctx, errors.New("sensor 7 is late")))
	e.Send(tx, 2, 3)
	require.NoError(e, tx.SoftError(e.Ctx, errors.New(long)))
	require.NoError(e, tx.SoftError(e.Ctx, errors.New("")))
	e.Send(tx, 3, 5)
	require.NoError(e, tx.Finalize(e.Ctx))
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 2)
	f := e.Expect(rx, novastream.KindSoftError)
	require.EqualError(e, f.Err, "sensor 7 is late")
	require.Equal(e, uint64(2), f.Seq)
	e.ExpectData(rx, 2, 3)
	f = e.Expect(rx, novastream.KindSoftError)
	require.True(e, strings.HasPrefix(long, f.Err.Error()))
	require.Greater(e, len(f.Err.Error()), 40)
	require.EqualError(e, e.Expect(rx, novastream.KindSoftError).Err, "")
	f = e.Expect(rx, novastream.KindData)
	require.Equal(e, uint64(3), f.Value.Seq)
	require.Equal(e, uint64(6), f.Seq)
	e.ExpectData(rx, 4, 5)
	e.Expect(rx, novastream.KindFinalized)
}

// Undecodable is case 18: a frame that cannot be decoded is a typed error; the
// anchor and its gauges are released.
func Undecodable(e *Env) {
	rx, err := novastream.Create[Rec](e.RX, e.Options(novastream.WithCodec[Rec](badCodec{}))...)
	require.NoError(e, err)
	defer rx.Close()
	tx, err := e.TX.Attach(e.Ctx, rx.Handle(), How{BadCodec: true})
	require.NoError(e, err)
	defer tx.Close()
	for i := range uint64(5) {
		require.NoError(e, tx.Send(e.Ctx, Rec{Seq: i}))
	}
	e.Expect(rx, novastream.KindAttached)
	for i := range uint64(3) {
		require.Equal(e, i, e.Expect(rx, novastream.KindData).Value.Seq)
	}
	_, err = rx.Recv(e.Ctx)
	require.ErrorIs(e, err, novastream.ErrDecode)
	_, err = rx.Recv(e.Ctx)
	require.ErrorIs(e, err, errEOF)
	<-tx.Done()
	require.ErrorIs(e, tx.Err(), novastream.ErrCancelled)
	e.Until(func() bool {
		s := e.RX.Stats()
		return s.Anchors == 0 && s.Inbound == 0 && s.Memory == 0
	}, "the anchor is left")
}

// ReceiverGone is case 27: a receiver closed or killed: the sender's next call,
// or the one it is blocked in, fails with its own error.
func ReceiverGone(e *Env) {
	rx := e.Create(novastream.Capacity(16))
	tx := e.Attach(rx.Handle())
	blocked := make(chan error, 1)
	n := e.Fill(tx)
	go func() { blocked <- tx.Send(e.Ctx, MakeRec(n)) }()
	require.NoError(e, rx.Close())
	require.ErrorIs(e, <-blocked, novastream.ErrPeerDead)
	require.ErrorIs(e, tx.Progress(), novastream.ErrPeerDead)
	v := MakeRec(1)
	require.ErrorIs(e, tx.TrySend(&v), novastream.ErrPeerDead)
	_, err := rx.TryRecv()
	require.ErrorIs(e, err, novastream.ErrClosed)
}

// ReceiverKilled is case 58, and the other half of 27: a receiver killed while
// its ring is full frees the sender blocked in Send with ErrPeerDead.
func ReceiverKilled(e *Env) {
	c := e.Near("receive", "16")
	h, err := novastream.ParseHandle(c.Line())
	require.NoError(e, err)
	tx := e.Attach(h)
	n := e.Fill(tx)
	blocked := make(chan error, 1)
	go func() { blocked <- tx.Send(e.Ctx, MakeRec(n)) }()
	c.Kill()
	require.ErrorIs(e, <-blocked, novastream.ErrPeerDead)
	<-tx.Done()
	e.Until(func() bool { return e.TX.Stats().Outlets == 0 }, "the outlet is left")

	// And a sender that waits for the receiver's answer to its Detach.
	c = e.Near("receive", "16")
	h, err = novastream.ParseHandle(c.Line())
	require.NoError(e, err)
	tx = e.Attach(h)
	c.Stop()
	go func() { blocked <- tx.Detach(e.Ctx) }()
	if !e.Carried() { // else the answer that the end has arrived is waited for first
		<-tx.Done()
	}
	c.Signal(syscall.SIGKILL) // Kill would let it go on first
	require.ErrorIs(e, <-blocked, novastream.ErrPeerDead)
	e.Until(func() bool { return e.TX.Stats().Outlets == 0 }, "the outlet is left")
}

// FinalizeAndExit is case 54: a sender that finalizes and exits, or is killed,
// right after its last send: a slow receiver still gets everything, in place,
// and what it borrowed stays readable.
func FinalizeAndExit(e *Env) {
	rx := e.Create(novastream.Capacity(1024))
	c := e.Child("exit", rx.Handle().String(), "1000")
	c.Wait()
	everything(e, rx, novastream.KindFinalized)
	if e.Carried() {
		return // what the lane still carries dies with the sender
	}
	rx = e.Create(novastream.Capacity(1024))
	c = e.Child("send", rx.Handle().String(), "1000")
	require.Equal(e, uint64(1000), c.Number())
	c.Kill()
	everything(e, rx, novastream.KindDropped)
}

// everything receives a thousand values of a sender that is gone, in place where
// the lane permits, and its end.
func everything(e *Env, rx *novastream.Receiver[Rec], end novastream.Kind) {
	e.Expect(rx, novastream.KindAttached)
	if e.Lane.OneRing {
		e.ExpectData(rx, 0, 1000)
		e.Expect(rx, end)
		return
	}
	seen := uint64(0)
	for seen < 1000 {
		loan, err := rx.Borrow(100)
		if errors.Is(err, novastream.ErrEmpty) {
			runtime.Gosched()
			continue
		}
		require.NoError(e, err)
		for i := range loan.Len() {
			require.Equal(e, seen, loan.At(i).Seq)
			require.True(e, loan.At(i).Whole())
			seen++
		}
		loan.Release()
	}
	e.Expect(rx, end)
	e.ExpectEnd(rx)
}

// SingleProcessor is case 56: Finalize, Detach and Close on a full ring with
// GOMAXPROCS=1 and a receiver in the same process: no deadlock, nothing lost.
func SingleProcessor(e *Env) {
	e.SkipFor(e.Lane.Name != "shm", "the program of this case has both ends in one process: run once")
	c := e.Child("single")
	for _, end := range []string{"finalize", "detach", "close"} {
		f := strings.Fields(c.Line())
		require.Equal(e, end, f[0])
		require.Equal(e, f[1], f[2])
		n, err := strconv.Atoi(f[1])
		require.NoError(e, err)
		require.Equal(e, 16, n)
	}
	c.Wait()
}

// EarlyFrames is case 57: frames sent before the receiver first polls arrive.
func EarlyFrames(e *Env) {
	rx := e.Create(novastream.Capacity(1024))
	tx := e.Attach(rx.Handle())
	e.Send(tx, 0, 500)
	require.NoError(e, tx.Finalize(e.Ctx))
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 500)
	e.Expect(rx, novastream.KindFinalized)
}

// Frozen is case 47: a frozen worker is noticed within the message timeout;
// before its first frame too.
func Frozen(e *Env) {
	frozen(e, 0)
	frozen(e, 10)
}

// frozen stops a sender after n values.
func frozen(e *Env, n uint64) {
	rx := e.Create(novastream.MessageTimeout(pause))
	c := e.Child("send", rx.Handle().String(), strconv.FormatUint(n, 10))
	require.Equal(e, n, c.Number())
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, n)
	c.Signal(syscall.SIGSTOP)
	f := e.Expect(rx, novastream.KindTimeout)
	require.ErrorIs(e, f.Err, novastream.ErrTimeout)
	var te *novastream.TimeoutError
	require.ErrorAs(e, f.Err, &te)
	require.GreaterOrEqual(e, te.After, pause)
	e.ExpectEnd(rx)
}
