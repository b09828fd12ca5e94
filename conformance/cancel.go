package conformance

import (
	"context"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// CancelStorm is case 23: a storm of cancels is idempotent; the sender is told
// once.
func CancelStorm(e *Env) {
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	e.Expect(rx, novastream.KindAttached)
	require.NoError(e, rx.Cancel("first"))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _ = rx.Cancel("later") })
	}
	wg.Wait()
	<-tx.Done()
	var why *novastream.CancelError
	require.ErrorAs(e, tx.Err(), &why)
	require.Equal(e, "first", why.Reason)
	f := e.Expect(rx, novastream.KindCancelled)
	require.ErrorAs(e, f.Err, &why)
	require.Equal(e, "first", why.Reason)
	_, err := rx.Recv(e.Ctx)
	require.ErrorIs(e, err, errEOF)
}

// CancelWakes is case 24: cancel wakes a blocked Send and a blocked Recv, with
// full buffers too.
func CancelWakes(e *Env) {
	for _, wait := range []novastream.Strategy{novastream.Hybrid, novastream.Spin, novastream.Park} {
		rx := e.Create(novastream.Capacity(16), novastream.Wait(wait))
		tx := e.Attach(rx.Handle(), How{Wait: wait})
		n := e.Fill(tx)
		blocked := make(chan error, 1)
		go func() { blocked <- tx.Send(e.Ctx, MakeRec(n)) }()
		require.NoError(e, rx.Cancel("wake"))
		require.ErrorIs(e, <-blocked, novastream.ErrCancelled)

		rx = e.Create(novastream.Wait(wait))
		e.Attach(rx.Handle(), How{Wait: wait})
		e.Expect(rx, novastream.KindAttached)
		got := make(chan novastream.Kind, 1)
		go func() {
			f, _ := rx.Recv(e.Ctx)
			got <- f.Kind
		}()
		require.NoError(e, rx.Cancel("wake"))
		require.Equal(e, novastream.KindCancelled, <-got)

		// The contexts of both.
		rx = e.Create(novastream.Capacity(16), novastream.Wait(wait))
		tx = e.Attach(rx.Handle(), How{Wait: wait})
		n = e.Fill(tx)
		ctx, cancel := context.WithTimeout(e.Ctx, 20*time.Millisecond)
		require.ErrorIs(e, tx.Send(ctx, MakeRec(n)), context.DeadlineExceeded)
		e.Expect(rx, novastream.KindAttached)
		e.ExpectData(rx, 0, n)
		_, err := rx.Recv(ctx)
		require.ErrorIs(e, err, context.DeadlineExceeded)
		cancel()
	}
}

// CancelTouchesOne is cases 25 and 30: cancel touches no other stream, even one
// with the same slot on another worker, and no frame crosses over.
func CancelTouchesOne(e *Env) {
	other := e.Node()
	a, b := e.Create(), CreateOn(e, other)
	require.Equal(e, a.Handle().Slot(), b.Handle().Slot())
	from := e.TX
	ta := e.Attach(a.Handle())
	if e.Lane.OneProcess {
		from = e.Here(other)
	}
	tb, err := from.Attach(e.Ctx, b.Handle())
	require.NoError(e, err)
	defer tb.Close()
	e.Send(ta, 0, 10)
	e.Send(tb, 1000, 1010)
	e.Expect(a, novastream.KindAttached)
	e.ExpectData(a, 0, 10)
	require.NoError(e, a.Cancel("only this"))
	<-ta.Done()
	e.Send(tb, 1010, 1020)
	require.NoError(e, tb.Finalize(e.Ctx))
	e.Expect(b, novastream.KindAttached)
	e.ExpectData(b, 1000, 1020)
	e.Expect(b, novastream.KindFinalized)
	e.Expect(a, novastream.KindCancelled)
}

// StopDrains is case 26: Stop drains in order; Cancel interrupts.
func StopDrains(e *Env) {
	rx := e.Create(novastream.Capacity(64))
	tx := e.Attach(rx.Handle())
	e.Send(tx, 0, 40)
	require.NoError(e, rx.Stop(e.Ctx))
	<-tx.Done()
	require.ErrorIs(e, tx.Err(), novastream.ErrCancelled)
	v := MakeRec(40)
	require.ErrorIs(e, tx.TrySend(&v), novastream.ErrCancelled)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 40)
	e.Expect(rx, novastream.KindCancelled)

	rx = e.Create(novastream.Capacity(64))
	tx = e.Attach(rx.Handle())
	e.Send(tx, 0, 40)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 1)
	require.NoError(e, rx.Cancel("now"))
	e.Expect(rx, novastream.KindCancelled)
	_, err := rx.Recv(e.Ctx)
	require.ErrorIs(e, err, errEOF)

	// Nobody attached: stopped at once.
	rx = e.Create()
	require.NoError(e, rx.Stop(e.Ctx))
	e.Expect(rx, novastream.KindCancelled)
}

// StopWhenFull is case 48: Cancel and Stop reach the sender while the receive
// ring is full and nobody drains it; Stop keeps what is buffered, a later
// Cancel interrupts it.
func StopWhenFull(e *Env) {
	rx := e.Create(novastream.Capacity(16))
	tx := e.Attach(rx.Handle())
	n := e.Fill(tx)
	blocked := make(chan error, 1)
	go func() { blocked <- tx.Send(e.Ctx, MakeRec(n)) }()
	require.NoError(e, rx.Stop(e.Ctx))
	require.ErrorIs(e, <-blocked, novastream.ErrCancelled)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 5)
	require.NoError(e, rx.Cancel("after all"))
	e.Expect(rx, novastream.KindCancelled)

	rx = e.Create(novastream.Capacity(16))
	tx = e.Attach(rx.Handle())
	n = e.Fill(tx)
	go func() { blocked <- tx.Send(e.Ctx, MakeRec(n)) }()
	require.NoError(e, rx.Cancel("at once"))
	require.ErrorIs(e, <-blocked, novastream.ErrCancelled)
}

// SilentProducer is case 49: a producer that yields nothing more and never ends
// pins nothing once its receiver is gone.
func SilentProducer(e *Env) {
	e.Warm()
	before := e.Held()
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	e.Send(tx, 0, 3)
	require.NoError(e, rx.Close())
	<-tx.Done()
	e.Until(func() bool {
		s, o := e.RX.Stats(), e.TX.Stats()
		return s.Inbound == 0 && s.Memory == 0 && o.Outlets == 0
	}, "the session is left")
	e.Back(before)
}

// GoneBeforeFirst is case 50: a client gone before the first item stops the work
// at the far end.
func GoneBeforeFirst(e *Env) {
	c := (*Child)(nil)
	rx := e.Create()
	if !e.Lane.OneProcess {
		c = e.Child("flood", rx.Handle().String())
		c.Number()
		require.NoError(e, rx.Close())
		require.Equal(e, "PeerDead", c.Line())
		c.Wait()
		return
	}
	tx := e.Attach(rx.Handle())
	require.NoError(e, rx.Close())
	<-tx.Done()
	require.ErrorIs(e, tx.Err(), novastream.ErrPeerDead)
}

// ShutdownInOrder is case 42, of streams: what is in flight is delivered, new
// streams and attaches fail fast, streams end in order.
func ShutdownInOrder(e *Env) {
	rx := e.Create(novastream.Capacity(64))
	tx := e.Attach(rx.Handle())
	e.Send(tx, 0, 30)
	done := make(chan error, 1)
	go func() { done <- e.RX.Shutdown(e.Ctx) }()
	<-tx.Done()
	require.ErrorIs(e, tx.Err(), novastream.ErrCancelled)
	e.Until(func() bool {
		_, err := novastream.Create[Rec](e.RX)
		return err != nil
	}, "a new stream is made")
	_, err := novastream.Create[Rec](e.RX)
	require.ErrorIs(e, err, novastream.ErrClosed)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 30)
	for err = nil; err == nil; {
		var f novastream.Frame[Rec]
		if f, err = rx.Recv(e.Ctx); err == nil {
			require.Equal(e, novastream.KindCancelled, f.Kind)
		}
	}
	require.ErrorIs(e, err, errEOF)
	require.NoError(e, <-done)
	_, err = e.TX.Attach(e.Ctx, rx.Handle())
	require.Error(e, err)
}
