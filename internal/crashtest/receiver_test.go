//go:build failpoint && linux

package crashtest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/conformance"
)

// receiving is a state that a killed receiver leaves, and what its sender sees.
type receiving struct {
	op, point string
	nth       int
	full      bool // the sender waits on a full ring when the receiver dies
	end       string
	told      error // besides ErrPeerDead, what the sender may rightly be told
	ring      bool
}

func (x receiving) run(t *testing.T) { rounds(t, x.once) }

// stream starts the receiver and answers its stream's handle.
func (x receiving) stream(e *env) (*child, novastream.Handle) {
	p := program{Dir: e.dir, Op: x.op, Point: x.point, Nth: x.nth, Size: 16}
	if x.ring {
		p.Shared = 2
	}
	c := start(e, p)
	h, err := novastream.ParseHandle(c.line())
	require.NoError(e, err)
	return c, h
}

func (x receiving) once(e *env) {
	c, h := x.stream(e)
	tx := e.attach(h, false)
	for i := range first {
		require.NoError(e, tx.send(i))
	}
	early := x.op == "attached" || x.op == "unread"
	if !early {
		require.Equal(e, "read", c.line())
	}
	ended := make(chan error, 1)
	switch {
	case x.full:
		n := first
		for tx.try(n) == nil {
			n++
		}
		go func() {
			for err := error(nil); ; n++ {
				if err = tx.send(n); err != nil {
					ended <- err
					return
				}
			}
		}()
		e.asleep() // when the receiver goes on
	case x.end == "finalize":
		require.NoError(e, tx.finalize())
	case x.end == "detach":
		go func() { ended <- tx.detach() }()
	default:
		for n := first; n < first+12 && tx.try(n) == nil; n++ {
		}
	}
	if !early {
		c.word()
	}
	c.stopped()
	c.kill()
	switch {
	case x.full:
		x.gone(e, <-ended)
	case x.end == "detach":
		if err := <-ended; err != nil { // it may have been answered
			require.ErrorIs(e, err, novastream.ErrPeerDead)
		}
	case x.end == "":
		e.until(func() bool { return tx.err() != nil }, "its death is not noticed")
		x.gone(e, tx.try(0))
	}
	require.NoError(e, tx.close())
}

// gone looks that an error says what has become of the receiver.
func (x receiving) gone(e *env, err error) {
	if x.told != nil && errors.Is(err, x.told) {
		return
	}
	require.ErrorIs(e, err, novastream.ErrPeerDead)
}

func TestCrash_ConsumerAsleep(t *testing.T) {
	receiving{op: "read", point: "park/looked"}.run(t)
}

func TestCrash_ConsumerArmedBeforeItLooksAgain(t *testing.T) {
	receiving{op: "read", point: "park/armed"}.run(t)
}

func TestCrash_ConsumerAfterReadBeforeHead(t *testing.T) {
	receiving{op: "read", point: "head/begun", full: true}.run(t)
}

func TestCrash_ConsumerAfterHeadBeforeWake(t *testing.T) {
	receiving{op: "read", point: "head/stored", full: true}.run(t)
}

func TestCrash_ConsumerHasFoundAFrame(t *testing.T) {
	receiving{op: "read", point: "get/found"}.run(t)
}

func TestCrash_ConsumerWithBorrowedFrames(t *testing.T) {
	receiving{op: "borrow", full: true}.run(t)
}

func TestCrash_ConsumerWithinALoop(t *testing.T) {
	receiving{op: "slots", full: true}.run(t)
}

func TestCrash_CancelAfterTheReasonBeforeItIsMarked(t *testing.T) {
	receiving{op: "cancel", point: "cancel/reason", full: true}.run(t)
}

func TestCrash_CancelMarkedBeforeWake(t *testing.T) {
	receiving{op: "cancel", point: "cancel/marked", full: true, told: novastream.ErrCancelled}.run(t)
}

func TestCrash_CloseMarkedBeforeWake(t *testing.T) {
	receiving{op: "close", point: "cancel/marked", full: true}.run(t)
}

func TestCrash_ConsumerHasReadFinalized(t *testing.T) {
	receiving{op: "attached", point: "exit/told", end: "finalize"}.run(t)
}

func TestCrash_ConsumerBeforeItsSegmentIsKept(t *testing.T) {
	receiving{op: "attached", point: "accept/released", end: "finalize"}.run(t)
}

func TestCrash_DetachBeforeItIsHeard(t *testing.T) {
	receiving{op: "unread", point: "said/begun", end: "detach"}.run(t)
}

func TestCrash_DetachHeardBeforeItIsAnswered(t *testing.T) {
	receiving{op: "unread", point: "said/vacated", end: "detach"}.run(t)
}

// Shared ring.

func TestCrash_CollectorAfterReadBeforeHead(t *testing.T) {
	receiving{ring: true, op: "read", point: "head/begun", full: true}.run(t)
}

func TestCrash_CollectorAfterHeadBeforeWake(t *testing.T) {
	receiving{ring: true, op: "read", point: "head/stored", full: true}.run(t)
}

func TestCrash_CollectorAsleep(t *testing.T) {
	receiving{ring: true, op: "read", point: "park/looked"}.run(t)
}

// The receiver dies as it skips what a dead sender had claimed.
func TestCrash_CollectorWithinARecovery(t *testing.T) {
	rounds(t, func(e *env) {
		x := receiving{ring: true, op: "attached", point: "recover/cleared"}
		c, h := x.stream(e)
		tx := e.attach(h, false)
		v := start(e, program{Dir: e.dir, Handle: h.String(), Op: "send", Point: "claim/won"})
		v.line()
		v.word()
		v.stopped()
		require.NoError(e, tx.send(0))
		v.kill()
		c.stopped()
		c.kill()
		e.until(func() bool { return tx.err() != nil }, "its death is not noticed")
		x.gone(e, tx.try(1))
		require.NoError(e, tx.close())
	})
}

// The receiver dies as it gives back frames of several slots.
func TestCrash_CollectorAfterClearingBeforeHead(t *testing.T) {
	rounds(t, func(e *env) {
		c := start(e, program{Dir: e.dir, Bytes: true, Shared: 2, Size: 64, Point: "release/cleared"})
		h, err := novastream.ParseHandle(c.line())
		require.NoError(e, err)
		tx, err := novastream.AttachBytes(e.ctx, e.b, h)
		require.NoError(e, err)
		require.NoError(e, tx.Send(e.ctx, frame(0, 200)))
		c.stopped()
		require.NoError(e, tx.Send(e.ctx, frame(1, 200)))
		c.kill()
		e.until(func() bool { return tx.Err() != nil }, "its death is not noticed")
		require.ErrorIs(e, tx.Send(e.ctx, frame(2, 200)), novastream.ErrPeerDead)
		require.NoError(e, tx.Close())
	})
}

// accepting is a state that a receiver leaves which is killed while a sender attaches.
type accepting struct {
	point string
	late  bool // another thread than that of the attach may be the one that stops
	ring  bool
}

func (x accepting) run(t *testing.T) {
	rounds(t, func(e *env) {
		c, h := receiving{op: "attached", point: x.point, ring: x.ring}.stream(e)
		type answer struct {
			tx  *novastream.Sender[conformance.Rec]
			err error
		}
		answers := make(chan answer, 1)
		go func() {
			tx, err := novastream.Attach[conformance.Rec](e.ctx, e.b, h)
			answers <- answer{tx, err}
		}()
		c.stopped()
		c.kill()
		got := <-answers
		if got.err != nil {
			require.ErrorIs(e, got.err, novastream.ErrPeerDead)
			return
		}
		require.True(e, x.late, "the attach was answered")
		<-got.tx.Done()
		require.ErrorIs(e, got.tx.Err(), novastream.ErrPeerDead)
		require.NoError(e, got.tx.Close())
	})
}

func TestCrash_AcceptWithAPlaceBeforeItsRing(t *testing.T) {
	accepting{point: "accept/placed"}.run(t)
}

func TestCrash_SegmentMadeBeforeItsMemory(t *testing.T) {
	accepting{point: "memfd/made", late: true}.run(t)
}

func TestCrash_SegmentAllocatedBeforeItsSeals(t *testing.T) {
	accepting{point: "memfd/allocated", late: true}.run(t)
}

func TestCrash_SegmentSealedBeforeMapping(t *testing.T) {
	accepting{point: "memfd/sealed", late: true}.run(t)
}

func TestCrash_AcceptWithASegmentBeforeItsHeader(t *testing.T) {
	accepting{point: "accept/segment"}.run(t)
}

func TestCrash_AcceptWithItsBells(t *testing.T) {
	accepting{point: "accept/bells"}.run(t)
}

func TestCrash_AcceptWithARingBeforeItIsKnown(t *testing.T) {
	accepting{point: "accept/ring"}.run(t)
}

func TestCrash_AcceptBeforeTheAnswer(t *testing.T) {
	accepting{point: "accept/admitted"}.run(t)
}

func TestCrash_MPSCAcceptBeforeTheAnswer(t *testing.T) {
	accepting{point: "accept/admitted", ring: true}.run(t)
}

// The receiver dies as it gives a segment out again.
func TestCrash_ReUseBeforeTheAnswer(t *testing.T) {
	rounds(t, func(e *env) {
		c, h := receiving{op: "attached", point: "accept/again"}.stream(e)
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			if _, err := c.Stopped(patience); err == nil {
				c.kill()
			}
		}()
		defer func() { <-killed }()
		for { // until the receiver has read an end, and its segment is free
			tx, err := novastream.Attach[conformance.Rec](e.ctx, e.b, h)
			if err != nil {
				require.ErrorIs(e, err, novastream.ErrPeerDead)
				return
			}
			require.NoError(e, tx.Detach(e.ctx))
		}
	})
}
