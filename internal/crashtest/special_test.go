//go:build failpoint && linux

package crashtest

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// claimer starts a sender of a shared ring that holds a claim, and answers its id
// when it stands there.
func (e *env) claimer(rx *receiver, p program) (*child, novastream.SenderID) {
	p.Dir, p.Handle = e.dir, rx.handle.String()
	c := start(e, p)
	id, err := strconv.Atoi(c.line())
	require.NoError(e, err)
	c.word()
	c.stopped()
	return c, novastream.SenderID(id)
}

// finish has a living sender send the rest and end, and looks that all of it came.
func (e *env) finish(rx *receiver, living *sending, from, to int) {
	fail := make(chan error, 1)
	go func() {
		for i := from; i < to; i++ {
			if err := living.send(i); err != nil {
				fail <- err
				return
			}
		}
		fail <- living.finalize()
	}()
	rx.until(living.id)
	require.NoError(e, <-fail)
	rx.expect(living.id, to, finalized)
}

// Two die with claims one behind the other, the later one first.
func TestCrash_MPSCTwoProducersWithClaims(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(3), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		one, a := e.claimer(rx, program{Op: "send", Point: "claim/won"})
		two, b := e.claimer(rx, program{Op: "send", Point: "claimer/header"})
		require.NoError(e, living.send(0))
		two.kill()
		rx.drain()
		require.Zero(e, rx.count(living.id), "a living claimer's slot was passed")
		one.kill()
		rx.until(a)
		rx.until(b)
		rx.expect(a, first, dropped)
		rx.expect(b, first, dropped)
		e.finish(rx, living, 1, others)
	})
}

// The living fill the ring behind a dead one's claim and wait.
func TestCrash_MPSCProducerHoldsUpAFullRing(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(16), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		c, id := e.claimer(rx, program{Op: "send", Point: "claim/won"})
		rx.drain()
		n := 0
		for living.try(n) == nil {
			n++
		}
		require.Equal(e, 15, n)
		done := make(chan struct{})
		go func() { defer close(done); e.finish(rx, living, n, n+100) }()
		e.asleep()
		c.kill()
		<-done
		rx.until(id)
		rx.expect(id, first, dropped)
	})
}

// A sender that dies before the receiver has read anything gives its place and its
// record to the next at once.
func TestCrash_MPSCRecordBeforeItsDroppedIsRead(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		var ids []novastream.SenderID
		for range 5 {
			c, id := e.claimer(rx, program{Op: "send", Point: "claim/won"})
			ids = append(ids, id)
			c.kill()
			e.until(func() bool { return e.a.Stats().Senders == 1 }, "its death is not noticed")
		}
		e.finish(rx, living, 0, others)
		for _, id := range ids {
			rx.until(id)
			rx.expect(id, first, dropped)
		}
	})
}

// A sender that stands still with a claim is told to be gone by the message timeout.
// Its slots are its own until it wakes: what it commits then harms nobody, and it
// learns why.
func TestCrash_MPSCProducerStoppedExpelledAndAwake(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing(),
			novastream.MessageTimeout(100*time.Millisecond))
		defer rx.close()
		living := e.attach(rx.handle, false)
		c, id := e.claimer(rx, program{Op: "hold"})
		c.signal(syscall.SIGSTOP)
		require.NoError(e, living.send(0))
		e.until(func() bool { return e.a.Stats().Senders == 1 }, "its silence is not noticed")
		rx.drain()
		require.Zero(e, rx.count(living.id), "the slot of one that may live was passed")
		c.signal(syscall.SIGCONT)
		require.NoError(e, c.Continue())
		c.line() // what its commit answers depends on which comes first
		require.Equal(e, "cancelled", c.line())
		rx.until(id)
		rx.expect(id, rx.count(id), novastream.KindTimeout)
		require.LessOrEqual(e, rx.count(id), first+1)
		c.kill()
		e.finish(rx, living, 1, 200)
	})
}

// One that stands still for less than that is not told anything, and goes on.
func TestCrash_MPSCProducerStoppedAndNotExpelled(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		c, id := e.claimer(rx, program{Op: "hold"})
		c.signal(syscall.SIGSTOP)
		require.NoError(e, living.send(0))
		rx.drain()
		require.Zero(e, rx.count(living.id))
		c.signal(syscall.SIGCONT)
		require.NoError(e, c.Continue())
		require.Equal(e, "nothing", c.line(), "it was told something")
		c.kill()
		rx.until(id)
		rx.expect(id, first+1, dropped)
		e.finish(rx, living, 1, 200)
	})
}

// One that was expelled in its sleep, and dies in it.
func TestCrash_MPSCProducerStoppedExpelledAndKilled(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing(),
			novastream.MessageTimeout(100*time.Millisecond))
		defer rx.close()
		living := e.attach(rx.handle, false)
		c, id := e.claimer(rx, program{Op: "hold"})
		c.signal(syscall.SIGSTOP)
		e.until(func() bool { return e.a.Stats().Senders == 1 }, "its silence is not noticed")
		require.NoError(e, living.send(0))
		rx.drain()
		require.Zero(e, rx.count(living.id))
		c.kill()
		rx.until(id)
		rx.expect(id, first, novastream.KindTimeout)
		e.finish(rx, living, 1, 200)
	})
}

// A connection that is cut is no death: the claim of a process that lives stays its
// own until it commits.
func TestCrash_MPSCProducerCutOffAndAlive(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		c, id := e.cut(rx)
		require.NoError(e, living.send(0))
		rx.drain()
		require.Zero(e, rx.count(living.id), "a living claimer's slot was passed")
		c.word()
		require.Equal(e, "peer is gone", c.line())
		require.Equal(e, "committed", c.line())
		rx.until(id)
		rx.expect(id, rx.count(id), dropped)
		e.finish(rx, living, 1, 200)
		// It holds nothing any more, though it lives: its record is another's.
		sender{}.another(e, rx)
		sender{}.another(e, rx)
		c.kill()
	})
}

// The same, and then it dies.
func TestCrash_MPSCProducerCutOffAndKilled(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		c, id := e.cut(rx)
		require.NoError(e, living.send(0))
		rx.drain()
		require.Zero(e, rx.count(living.id), "a living claimer's slot was passed")
		c.kill()
		rx.until(id)
		rx.expect(id, first, dropped)
		e.finish(rx, living, 1, 200)
	})
}

// cut starts a sender that holds a claim when its connection is cut, and waits until
// both sides have seen that.
func (e *env) cut(rx *receiver) (*child, novastream.SenderID) {
	c := start(e, program{Dir: e.dir, Handle: rx.handle.String(), Op: "cut"})
	id, err := strconv.Atoi(c.line())
	require.NoError(e, err)
	c.word()
	require.Equal(e, "peer is gone", c.line())
	e.until(func() bool { return e.a.Stats().Senders == 1 }, "the end of the connection is not noticed")
	return c, novastream.SenderID(id)
}
