package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// scribbled is how many words are written in all by TestHostile_Scribblers.
// $NOVA_SCRIBBLE_WORDS sets another number.
var scribbled = func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("NOVA_SCRIBBLE_WORDS"), 10, 64); err == nil {
		return n
	}
	return 40_000_000
}()

// TestHostile_Scribblers: a process that has a segment mapped writes into every byte
// of it, at random and by what it knows of the layout; it rings and fills the bells
// and takes pages away. Whoever has the other end gets typed errors of that stream and
// nothing else; a sibling stream goes on, and nothing is left.
func TestHostile_Scribblers(t *testing.T) {
	overShm(t, func(e *Env) {
		var cancel context.CancelFunc
		e.Ctx, cancel = context.WithCancel(context.Background()) // as long as it takes
		defer cancel()
		others, stop := newSiblings(e)
		defer stop()
		for _, k := range ringKinds {
			row := func(name string, run func(e *Env, words uint64) uint64) {
				e.T.Run(name+"/"+k.name, func(t *testing.T) {
					at := *e
					at.T = t
					run(&at, 1) // connects, and fills what is kept
					before := at.Held()
					before.Goroutines++ // each runs in a goroutine of its own
					alone := others.during(func() { quiet(pause) })
					var n uint64
					beside := others.during(func() { n = run(&at, scribbled/uint64(2*len(ringKinds))) })
					fmt.Printf("%-8s %-15s siblings alone: %v\n%-8s %-15s beside it:      %v (%d words)\n", name, k.name, alone, name, k.name, beside, n)
					at.Back(before)
					others.flow()
				})
			}
			if k.bytes {
				row("sender", func(e *Env, n uint64) uint64 { return scribblingSender[[]byte](e, k, n) })
				row("receiver", func(e *Env, n uint64) uint64 { return scribblingReceiver(e, k, n, []byte("some bytes of a frame")) })
			} else {
				row("sender", func(e *Env, n uint64) uint64 { return scribblingSender[Rec](e, k, n) })
				row("receiver", func(e *Env, n uint64) uint64 { return scribblingReceiver(e, k, n, MakeRec(1)) })
			}
		}
	})
}

// named tells whether an error has a name that a user can tell it by.
func named(err error) bool {
	for _, known := range []error{
		novastream.ErrCorrupt, novastream.ErrTransport, novastream.ErrPeerDead, novastream.ErrCancelled, novastream.ErrClosed,
		novastream.ErrFull, novastream.ErrEmpty, novastream.ErrDecode, context.DeadlineExceeded, io.EOF,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return err == nil
}

// returns fails when a call does not come back: nothing that a peer writes may hold one.
func (e *Env) returns(what string, call func()) {
	e.Helper()
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	select {
	case <-done:
	case <-time.After(Patience):
		require.Fail(e, "held", "%s does not return", what)
	}
}

// scribblingSender receives from a sender that scribbles, stream after stream.
func scribblingSender[T any](e *Env, k ringKind, words uint64) (total uint64) {
	c := e.Child("hostile-sender", k.name)
	opts := []novastream.CreateOption{novastream.Capacity(64), novastream.AttachTimeout(0)}
	if k.producers > 1 {
		opts = append(opts, novastream.Shared(k.producers), novastream.OneRing())
	}
	for total < words {
		rx, err := novastream.Create[T](e.RX, opts...)
		require.NoError(e, err)
		_, err = fmt.Fprintln(c.in, rx.Handle())
		require.NoError(e, err)
		var over atomic.Bool
		read := make(chan error, 1)
		go func() { read <- readOn(e.Ctx, rx, &over) }()
		total += c.Number()
		over.Store(true)
		e.returns("Close", func() { rx.Close() })
		e.returns("a read", func() { require.NoError(e, <-read) })
	}
	c.Kill()
	e.Until(func() bool { return e.RX.Stats().Senders <= 1 && e.RX.Stats().Inbound <= 1 }, "sessions are left")
	return total
}

// readOn reads in each way until told to stop, and answers an error that has no name.
func readOn[T any](ctx context.Context, rx *novastream.Receiver[T], over *atomic.Bool) error {
	for !over.Load() {
		var f novastream.Frame[T]
		var err error
		switch rand.IntN(8) {
		case 0:
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			f, err = rx.Recv(short)
			cancel()
		case 1:
			for range rx.Slots(100) {
			}
		case 2:
			var loan novastream.Loan[T]
			if loan, err = rx.Borrow(100); errors.Is(err, novastream.ErrMisuse) {
				err = nil
			}
			loan.Release()
		default:
			f, err = rx.TryRecv()
		}
		if !named(err) || !named(f.Err) && f.Kind != novastream.KindSoftError {
			return fmt.Errorf("an error without a name: %v, %v", err, f.Err)
		}
		if err == nil && f.Kind == novastream.KindTransportError && !errors.Is(f.Err, novastream.ErrCorrupt) && !errors.Is(f.Err, novastream.ErrTransport) {
			return fmt.Errorf("a failure without a name: %v", f.Err)
		}
	}
	return nil
}

// scribblingReceiver sends to a receiver that scribbles, stream after stream.
func scribblingReceiver[T any](e *Env, k ringKind, words uint64, v T) (total uint64) {
	c := e.Child("hostile-receiver", k.name)
	h, err := novastream.ParseHandle(c.Line())
	require.NoError(e, err)
	for total < words {
		tx, err := novastream.Attach[T](e.Ctx, e.TXHere(), h)
		if errors.Is(err, novastream.ErrPeerDead) && k.producers > 1 {
			continue // a lie by which it takes the sender's record back
		}
		if err != nil { // it has written to the header by then, or to the record
			require.ErrorIs(e, err, novastream.ErrCorrupt)
			continue
		}
		e.returns("a send", func() { sendOn(e, tx, v) })
		e.returns("Close", func() { tx.Close(); _ = tx.Commit() }) // what is lent is given back
		m, err := e.TXHere().Node().Call(e.Ctx, control.WorkerID(h.Worker()), "words", control.Message{})
		require.NoError(e, err)
		total, err = strconv.ParseUint(string(m.Payload), 10, 64)
		require.NoError(e, err)
	}
	c.Kill()
	e.Until(func() bool { return e.TX.Stats().Outlets <= 1 }, "outlets are left")
	return total
}

// sendOn sends in each way until the session has ended, or for a while.
func sendOn[T any](e *Env, tx *novastream.Sender[T], v T) {
	full := 0
	for i := 0; i < 2000 && full < 20; i++ {
		var err error
		switch rand.IntN(8) {
		case 0:
			short, cancel := context.WithTimeout(e.Ctx, time.Millisecond)
			err = tx.Send(short, v)
			cancel()
		case 1:
			for p := range tx.Slots(70) {
				*p = v
			}
		case 2:
			var p *T
			if p, err = tx.Reserve(); err == nil {
				*p = v
				if rand.IntN(100) == 0 {
					return // to be closed with a slot that is lent
				}
				err = tx.Commit()
			} else if errors.Is(err, novastream.ErrMisuse) {
				err = nil
			}
		case 3:
			short, cancel := context.WithTimeout(e.Ctx, time.Millisecond)
			err = tx.SoftError(short, errors.New("a soft error"))
			cancel()
		case 4:
			err = tx.Progress()
		default:
			err = tx.TrySend(&v)
		}
		require.True(e, named(err), "an error without a name: %v", err)
		if err != nil && tx.Err() != nil {
			return
		}
		if err != nil {
			full++
		}
	}
	if rand.IntN(2) == 0 {
		short, cancel := context.WithTimeout(e.Ctx, 100*time.Millisecond)
		defer cancel()
		err := tx.Finalize(short)
		require.True(e, named(err) || errors.Is(err, control.ErrDeadline), "an error without a name: %v", err)
	}
}
