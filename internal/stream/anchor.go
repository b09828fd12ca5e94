package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Anchor is the receiving side of a stream.
//
// Two kinds of goroutine meet here. The consumer, one at a time, calls Next,
// Wait, Release and what is below "the consumer's own". Control (handlers of
// other nodes' messages, timers, Cancel, Stop, Close) changes what the lock
// guards, raises the signal and wakes the consumer; it never touches a ring but
// to cancel and to seal it.
type Anchor struct {
	reg *Registry
	h   handle.Handle
	opt CreateOptions

	mu       sync.Mutex
	state    state
	reason   string
	senders  int        // places taken
	last     uint32     // sender id given last
	arrivals []*Inbound // not yet taken over by the consumer
	all      []*Inbound // whose memory is held
	timer    attachTimer
	over     chan struct{} // closed when the consumer has been told the end

	pool *pool // with OneRing; made by the first that attaches

	closing atomic.Bool // Close has begun: what senders do from now on is its consequence

	guard  guard
	signal atomic.Bool
	parker atomic.Pointer[shm.Parker]

	// The consumer's own.
	in      []*Inbound
	ring    *pool   // as of the last look at what the lock guards
	news    []Event // to be told first
	turn    int
	burst   int
	lender  *ring.Consumer // whose frames are lent
	lending *Inbound       // of which sender, at Next
	done    bool
	sleeper anchorSleeper
	own     *shm.Parker // where it waits while there is no ring, or more than one
	set     *bells
}

type state uint8

const (
	open      state = iota
	stopped         // Stop: no attach any more, what is in the rings is delivered
	cancelled       // Cancel
	timedOut        // nobody attached in time
	ended           // its only sender has ended it
	closed          // Close
)

// Create makes an anchor.
func (g *Registry) Create(opt CreateOptions) (*Anchor, error) {
	if err := g.isClosing(); err != nil {
		return nil, err
	}
	if err := opt.check(g.maxMemory); err != nil {
		return nil, err
	}
	for _, name := range opt.Lanes {
		if g.lane(name) == nil {
			return nil, fmt.Errorf("%w: this build has no lane %q: it has %v", fault.ErrLaneUnavailable, name, g.laneNames())
		}
	}
	a := &Anchor{reg: g, opt: opt, over: make(chan struct{})}
	a.sleeper.a = a
	a.timer.d = opt.AttachTimeout
	if err := a.openBells(); err != nil {
		return nil, err
	}
	slot, generation, err := g.anchors.put(a)
	if err != nil {
		a.closeBells()
		return nil, err
	}
	a.h = handle.Make(uint64(g.node.WorkerID()), slot, generation)
	a.mu.Lock()
	a.timer.arm(a.attachTimeout)
	a.mu.Unlock()
	return a, nil
}

// Handle names the anchor.
func (a *Anchor) Handle() handle.Handle { return a.h }

// wake makes the consumer look at what control has changed.
func (a *Anchor) wake() {
	a.signal.Store(true)
	if p := a.parker.Load(); p != nil {
		p.Interrupt()
	}
}

func (a *Anchor) attachTimeout(turn uint64) {
	a.mu.Lock()
	fire := a.timer.turn == turn && a.state == open && a.senders == 0
	if fire {
		a.state = timedOut
	}
	a.mu.Unlock()
	if fire {
		a.wake()
	}
}

// vacate gives the place free that a session holds. A stream that takes no sender any
// more may be over with its last one, which need not have got as far as to have a
// session to tell of.
func (a *Anchor) vacate(in *Inbound) {
	a.mu.Lock()
	if !in.attached.Load() {
		a.mu.Unlock()
		return
	}
	a.senders--
	in.attached.Store(false) // behind the count: who reads it finds the place free
	last, st := a.senders == 0, a.state
	if last && st == open {
		a.timer.arm(a.attachTimeout)
	}
	a.mu.Unlock()
	if last && st == stopped {
		a.wake()
	}
}

// sessions lists the sessions whose memory is held.
func (a *Anchor) sessions() []*Inbound {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*Inbound(nil), a.all...)
}

// Cancel ends the stream now. Any goroutine may call it, any number of times.
func (a *Anchor) Cancel(reason string) error {
	a.mu.Lock()
	switch a.state {
	case closed:
		a.mu.Unlock()
		return fmt.Errorf("%w: %v", fault.ErrClosed, a.h)
	case cancelled, ended, timedOut:
		a.mu.Unlock()
		return nil
	}
	a.state, a.reason = cancelled, reason
	a.timer.pause()
	all := append([]*Inbound(nil), a.all...)
	a.mu.Unlock()
	if a.enterControl() {
		for _, in := range all {
			in.close(&wire.Cancel{Outlet: in.key.outlet, Reason: reason})
		}
	}
	a.exit()
	a.wake()
	return nil
}

// enterControl keeps the memory of the sessions while control touches it; exit
// must follow in either case.
func (a *Anchor) enterControl() bool { return a.guard.enter() }

// exit leaves the guard, and releases the memory if that waited for it.
func (a *Anchor) exit() {
	if a.guard.exit() {
		a.sweep()
	}
}

// Stop tells the senders to end; what they have committed is still delivered,
// then Cancelled. It does not wait for that.
func (a *Anchor) Stop(context.Context) error {
	a.mu.Lock()
	switch a.state {
	case closed:
		a.mu.Unlock()
		return fmt.Errorf("%w: %v", fault.ErrClosed, a.h)
	case open:
	default:
		a.mu.Unlock()
		return nil
	}
	a.state, a.reason = stopped, "stopped by the receiver"
	a.timer.pause()
	all := append([]*Inbound(nil), a.all...)
	a.mu.Unlock()
	for _, in := range all {
		if in.gone.Load() == nil && in.key != (inKey{}) {
			in.tell(&wire.Cancel{Outlet: in.key.outlet, Reason: a.reason, Stop: true})
		}
	}
	a.wake()
	return nil
}

// drained waits until the consumer has been told the end.
func (a *Anchor) drained(ctx context.Context) error {
	select {
	case <-a.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close ends the stream and releases everything as soon as no call can touch
// it. Any goroutine may call it.
func (a *Anchor) Close() error {
	a.mu.Lock()
	if a.state == closed {
		a.mu.Unlock()
		return nil
	}
	a.state = closed
	a.closing.Store(true)
	a.timer.pause()
	all := append([]*Inbound(nil), a.all...)
	a.mu.Unlock()
	a.reg.anchors.drop(a.h)
	for _, in := range all {
		in.close(&wire.Cancel{Outlet: in.key.outlet, Gone: true})
	}
	// A consumer on its fast path has seen the seal after this, or is seen busy.
	shm.Barrier()
	idle := a.guard.close()
	// And one that gives frames back, as in Outlet.retire.
	shm.Barrier()
	a.wake()
	if idle {
		a.sweep()
	}
	return nil
}

// sweep releases what is not lent. No slow call is under way any more.
func (a *Anchor) sweep() {
	a.mu.Lock()
	all := a.all
	a.mu.Unlock()
	kept := all[:0:0]
	for _, in := range all {
		if !in.release(false) {
			kept = append(kept, in)
		}
	}
	a.mu.Lock()
	a.all = kept
	a.mu.Unlock()
	if len(kept) == 0 {
		a.closeBells()
	}
}
