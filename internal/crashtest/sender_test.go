//go:build failpoint && linux

package crashtest

import (
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// sender is a state that a killed sender leaves, and what its receiver sees.
type sender struct {
	op, point string
	nth       int
	ring      bool // one ring for several senders
	bytes     bool // frames of bytes, not values
	size      int  // of a frame of bytes
	capacity  int  // slots; 0: 64
	frames    int  // what arrives,
	end       novastream.Kind
	asleep    bool // the receiver sleeps while the child does what it does
	blocked   bool // what it has claimed holds the living up until it is dead
	unheard   bool // the receiver has never heard of it
}

const others = 20 // frames that a living sender sends before and after the death

func (x sender) run(t *testing.T) { rounds(t, x.once) }

func (x sender) once(e *env) {
	if x.capacity == 0 {
		x.capacity = 64
	}
	opts := []novastream.CreateOption{novastream.Capacity(x.capacity)}
	if x.ring {
		opts = append(opts, novastream.Shared(2), novastream.OneRing())
	}
	rx := e.create(x.bytes, opts...)
	defer rx.close()
	var living *sending
	if x.ring {
		living = e.attach(rx.handle, x.bytes)
	}
	c := start(e, program{
		Dir: e.dir, Handle: rx.handle.String(), Bytes: x.bytes, Op: x.op, Point: x.point, Nth: x.nth, Size: x.size,
	})
	victim := novastream.SenderID(1)
	if living != nil {
		victim = living.id + 1
	}
	done := make(chan struct{})
	if x.op != "attach" {
		id, err := strconv.Atoi(c.line())
		require.NoError(e, err)
		require.Equal(e, victim, novastream.SenderID(id))
		rx.drain()
		if x.asleep {
			go func() { defer close(done); rx.until(victim) }()
			e.asleep() // when the child goes on, or would miss nothing
		}
		c.word()
	}
	if x.op == "again" {
		require.Equal(e, "detached", c.line())
		rx.drain()
		rx.expect(victim, first, novastream.KindDetached)
		rx.events = nil
		victim++
		c.word()
	}
	c.stopped()
	sent := 0
	if !x.asleep {
		rx.drain()
		if living != nil { // a process that stands still is not dead
			for ; sent < others; sent++ {
				require.NoError(e, living.send(sent))
			}
			rx.drain()
			if x.blocked {
				sent = 0
			}
			require.Equal(e, sent, rx.count(living.id))
			sent = others
		}
	}
	c.kill()
	if x.unheard {
		require.Zero(e, rx.exit(victim), "the receiver has heard of it")
		if x.ring {
			x.rest(e, rx, living, sent)
			return
		}
		x.another(e, rx)
		return
	}
	if x.asleep {
		<-done
	} else {
		rx.until(victim)
	}
	rx.expect(victim, x.frames, x.end)
	if x.ring {
		x.rest(e, rx, living, sent)
		return
	}
	x.over(e, rx)
}

// over looks that an exclusive stream has ended, or takes another sender.
func (x sender) over(e *env, rx *receiver) {
	if x.end != novastream.KindDetached {
		for range 2 {
			_, err := rx.recv()
			require.ErrorIs(e, err, io.EOF)
		}
		return
	}
	x.another(e, rx)
}

// another looks that there is a place for another sender, and that it works.
func (x sender) another(e *env, rx *receiver) {
	tx := e.attach(rx.handle, x.bytes)
	require.NoError(e, tx.send(0))
	require.NoError(e, tx.finalize())
	rx.until(tx.id)
	rx.expect(tx.id, 1, novastream.KindFinalized)
}

// rest looks that the others of a shared ring go on, and that the dead one's place
// and record are another's.
func (x sender) rest(e *env, rx *receiver, living *sending, sent int) {
	fail := make(chan error, 1)
	go func() {
		for i := sent; i < sent+others; i++ {
			if err := living.send(i); err != nil {
				fail <- err
				return
			}
		}
		fail <- living.finalize()
	}()
	rx.until(living.id)
	require.NoError(e, <-fail)
	rx.expect(living.id, sent+others, novastream.KindFinalized)
	x.another(e, rx)
	x.another(e, rx)
}
