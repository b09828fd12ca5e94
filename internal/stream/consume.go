package stream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Event is what the consumer is told.
type Event struct {
	Kind   Kind
	Sender uint32
	Seq    uint64
	// Data is the payload in the ring, the consumer's until Release.
	Data []byte
	Err  error
}

// maxText bounds a soft error's text; an honest sender cuts it off there.
const maxText = 1024

// burstLimit is after how many frames of one sender the others have their turn.
const burstLimit = 64

// Next takes the next thing there is to tell. The answer is false when there is
// nothing now; io.EOF after the end was told, fault.ErrClosed after Close.
func (a *Anchor) Next() (ev Event, ok bool, err error) {
	if ev, ok = a.frame(); ok {
		return ev, true, nil
	}
	return a.next()
}

// frame takes the next Data frame of an exclusive stream that has nothing else to
// tell. The consumer's own mark keeps the ring's memory; no guard is needed.
func (a *Anchor) frame() (Event, bool) {
	if a.opt.Shared || a.done || a.signal.Load() || len(a.in) == 0 || len(a.news) > 0 {
		return Event{}, false
	}
	in := a.in[0]
	if !in.announced || in.gone.Load() != nil {
		return Event{}, false
	}
	data, ok := in.c.NextData()
	if !ok {
		return Event{}, false
	}
	a.lender, a.lending = in.c, in
	return Event{Kind: Data, Sender: in.sender, Seq: in.Count(1), Data: data}, true
}

// next is the slow half of Next.
func (a *Anchor) next() (ev Event, ok bool, err error) {
	defer a.exit()
	if !a.guard.enter() {
		return ev, false, a.isClosed()
	}
	if a.done {
		return ev, false, io.EOF
	}
	if a.signal.Load() {
		a.signal.Store(false)
		if ev, ok := a.control(); ok {
			return ev, true, nil
		}
	}
	if len(a.news) > 0 {
		ev, a.news = a.news[0], a.news[1:]
		return ev, true, nil
	}
	if a.opt.Shared {
		ev, ok = a.nextShared()
	} else {
		ev, ok = a.nextExclusive()
	}
	if !ok {
		ev, ok = a.idle()
	}
	if ok && ev.Kind.Exit() && a.closing.Load() { // read behind what has ended the session
		return Event{}, false, a.isClosed()
	}
	return ev, ok, nil
}

func (a *Anchor) isClosed() error { return fmt.Errorf("%w: %v", fault.ErrClosed, a.h) }

// control takes over what control goroutines have left.
func (a *Anchor) control() (Event, bool) {
	a.mu.Lock()
	st, reason := a.state, a.reason
	arrivals := a.arrivals
	a.arrivals = nil
	a.ring = a.pool
	a.mu.Unlock()
	for _, in := range arrivals {
		if in.record > 0 {
			in.announced = true
			a.news = append(a.news, Event{Kind: Attached, Sender: in.sender})
			continue
		}
		a.in = append(a.in, in)
		a.addBell(in)
	}
	if st == cancelled {
		return a.finish(Event{Kind: Cancelled, Err: &fault.CancelError{Reason: reason}}), true
	}
	return Event{}, false
}

// idle tells the end of a stream whose rings have nothing more to tell.
func (a *Anchor) idle() (Event, bool) {
	a.mu.Lock()
	st, reason, n, late := a.state, a.reason, a.senders, len(a.arrivals)
	a.mu.Unlock()
	rings := len(a.in)
	if a.ring != nil {
		rings--
		n += a.ring.attached()
	}
	if late > 0 || rings > 0 || n > 0 {
		return Event{}, false
	}
	switch st {
	case stopped:
		return a.finish(Event{Kind: Cancelled, Err: &fault.CancelError{Reason: reason}}), true
	case timedOut:
		return a.finish(Event{Kind: Timeout, Err: &TimeoutError{What: "nobody attached", After: a.opt.AttachTimeout}}), true
	}
	return Event{}, false
}

// finish makes ev the last thing that is told.
func (a *Anchor) finish(ev Event) Event {
	a.done = true
	a.mu.Lock()
	if a.state == open || a.state == stopped {
		a.state = ended
	}
	a.timer.pause()
	all := append([]*Inbound(nil), a.all...)
	// Cancel may not have told all of them yet.
	gone, reason := a.state != cancelled, a.reason
	if gone {
		reason = ""
	}
	a.mu.Unlock()
	a.reg.anchors.drop(a.h)
	for _, in := range all {
		in.close(&wire.Cancel{Outlet: in.key.outlet, Gone: gone, Reason: reason})
		a.retire(in, false)
	}
	a.in = nil
	close(a.over)
	return ev
}

// retire releases a session's memory, or leaves that to Release when frames of
// it are lent. The consumer calls it.
func (a *Anchor) retire(in *Inbound, clean bool) {
	if in.c != nil {
		in.c.Seal()
	}
	a.dropBell(in)
	if !in.release(clean) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, other := range a.all {
		if other == in {
			a.all = append(a.all[:i], a.all[i+1:]...)
			break
		}
	}
}

func (a *Anchor) nextExclusive() (Event, bool) {
	if len(a.in) == 0 {
		return Event{}, false
	}
	ev, ok := a.nextOf(a.in[0])
	if ok && ev.Kind.Exit() {
		a.exited(0, ev)
		if ev.Kind != Detached {
			ev = a.finish(ev)
		}
	}
	return ev, ok
}

// nextShared gives each sender its turn.
func (a *Anchor) nextShared() (Event, bool) {
	for range len(a.in) {
		if a.burst >= burstLimit || a.turn >= len(a.in) {
			a.burst = 0
			a.turn++
			if a.turn >= len(a.in) {
				a.turn = 0
			}
		}
		in := a.in[a.turn]
		var ev Event
		var ok bool
		if a.ring != nil && in == a.ring.in {
			ev, ok = a.nextPooled()
		} else if ev, ok = a.nextOf(in); ok && ev.Kind.Exit() {
			a.exited(a.turn, ev)
		}
		if ok {
			a.burst++
			return ev, true
		}
		a.burst = burstLimit
	}
	return Event{}, false
}

// exited takes a session off the list.
func (a *Anchor) exited(i int, ev Event) {
	in := a.in[i]
	failpoint.Hit("exit/told")
	a.in = append(a.in[:i], a.in[i+1:]...)
	in.told.Store(true)
	in.detach()
	a.retire(in, ev.Kind == Detached || ev.Kind == Finalized)
}

// nextOf takes the next thing that one sender's own ring has to tell.
func (a *Anchor) nextOf(in *Inbound) (Event, bool) {
	ev := Event{Sender: in.sender, Seq: in.seq}
	if !in.announced {
		in.announced = true
		ev.Kind = Attached
		return ev, true
	}
	// Read before the ring: what was committed before the end is delivered
	// before the end.
	gone := in.gone.Load()
	if gone != nil {
		in.halt()
	}
	f, ok := in.c.Next()
	if !ok {
		if err := in.c.Err(); err != nil && !errors.Is(err, ring.ErrClosed) {
			ev.Kind, ev.Err = TransportError, fmt.Errorf("%w: sender %d: %w", fault.ErrCorrupt, in.sender, err)
			in.close(&wire.Cancel{Outlet: in.key.outlet, Reason: ev.Err.Error()})
			return ev, true
		}
		if gone == nil {
			in.c.Settle()
			return ev, false
		}
		ev.Kind, ev.Err = gone.kind, gone.err
		in.c.Close()
		return ev, true
	}
	return a.event(in, in.c, f, ev), true
}

// event makes an event of a frame.
func (a *Anchor) event(in *Inbound, c *ring.Consumer, f ring.Frame, ev Event) Event {
	ev.Data, ev.Seq = f.Data, in.seq
	if f.Kind.Terminal() {
		ev.Kind = exitKind(f.Kind)
		switch ev.Kind {
		case Dropped:
			ev.Err = fault.ErrPeerDead
		case Cancelled:
			a.mu.Lock()
			ev.Err = &fault.CancelError{Reason: a.reason}
			a.mu.Unlock()
		case TransportError:
			ev.Err = fault.ErrTransport
		}
		return ev
	}
	in.seq++
	a.lender, a.lending = c, in
	switch f.Kind {
	case ring.SoftError:
		text := string(f.Data)
		for f.More {
			var ok bool
			if f, ok = c.Next(); !ok || f.Kind != ring.SoftError {
				break
			}
			if len(text) < maxText {
				text += string(f.Data)
			}
		}
		ev.Kind, ev.Err, ev.Data = SoftError, errors.New(text), nil
		a.Release()
	default:
		ev.Kind = Data
	}
	return ev
}

func exitKind(k ring.Kind) Kind {
	switch k {
	case ring.Detached:
		return Detached
	case ring.Finalized:
		return Finalized
	case ring.Cancelled:
		return Cancelled
	case ring.TransportError:
		return TransportError
	}
	return Dropped
}

// nextPooled takes the next thing that the shared ring has to tell.
func (a *Anchor) nextPooled() (Event, bool) {
	f, in, ok := a.ring.next()
	if !ok {
		if err := a.ring.err(); err != nil && !errors.Is(err, ring.ErrClosed) {
			return a.finish(Event{Kind: TransportError, Err: fmt.Errorf("%w: shared ring: %w", fault.ErrCorrupt, err)}), true
		}
		a.ring.in.c.Settle()
		return Event{}, false
	}
	if in == nil {
		a.Release()
		return Event{}, false
	}
	if !f.Kind.Terminal() {
		return a.behindAttached(in, a.event(in, a.ring.in.c, f, Event{Sender: in.sender}))
	}
	ev := a.event(in, nil, f, Event{Sender: in.sender})
	if g := in.gone.Load(); g != nil && ev.Kind == Dropped {
		ev.Kind, ev.Err = g.kind, g.err
	}
	in.detach()
	a.retire(in, true)
	return a.behindAttached(in, ev)
}

// behindAttached tells what came of a member of a shared ring, and first that it has
// attached, if it was faster than the look at what control has left. Of a member whose
// attach has failed it tells nothing.
func (a *Anchor) behindAttached(in *Inbound, ev Event) (Event, bool) {
	if in.announced {
		return ev, true
	}
	if over, ok := a.control(); ok {
		a.Release()
		return over, true
	}
	if !in.announced {
		a.Release()
		return Event{}, false
	}
	a.news = append(a.news, ev)
	ev, a.news = a.news[0], a.news[1:]
	return ev, true
}

// Release gives back what Next has lent.
func (a *Anchor) Release() {
	c := a.lender
	if c == nil {
		return
	}
	a.lender = nil
	c.Release()
	if a.done || a.guard.n.Load()&closedBit != 0 {
		if a.guard.enter(); a.guard.exit() {
			a.sweep()
			return
		}
		for _, in := range a.sessions() {
			if a.done && in.c == c {
				a.retire(in, false)
			}
		}
	}
}

// Fast is the ring that an exclusive stream's frames come out of now, for the
// fast path: nil when there is none or Next has something else to tell first.
func (a *Anchor) Fast() (c *ring.Consumer, in *Inbound) {
	if a.opt.Shared || len(a.in) == 0 || !a.in[0].announced || a.done {
		return nil, nil
	}
	return a.in[0].c, a.in[0]
}

// Sender is the id by which the receiver knows the session's sender.
func (in *Inbound) Sender() uint32 { return in.sender }

// Count tells that n frames were taken from the ring on the fast path, and
// answers the number of the first.
func (in *Inbound) Count(n uint64) uint64 {
	seq := in.seq
	in.seq += n
	return seq
}

// Wait waits until Next has something to tell, or ctx ends.
func (a *Anchor) Wait(ctx context.Context) error {
	defer a.exit()
	if !a.guard.enter() {
		return a.isClosed()
	}
	p := a.own
	if !a.opt.Shared && len(a.in) > 0 {
		p = a.in[0].end.Parker
	} else if a.ring != nil && len(a.in) == 1 && a.in[0] == a.ring.in {
		p = a.ring.end.Parker
	}
	a.parker.Store(p)
	return p.Wait(ctx, &a.sleeper)
}

// anchorSleeper is what the parker sees of an anchor.
type anchorSleeper struct{ a *Anchor }

// Ready tells whether Next has something to tell.
func (s *anchorSleeper) Ready() bool {
	a := s.a
	if a.signal.Load() || a.done || len(a.news) > 0 {
		return true
	}
	for _, in := range a.in {
		switch {
		case !in.announced || in.gone.Load() != nil:
			return true
		case a.ring != nil && in == a.ring.in:
			if a.ring.ready() {
				return true
			}
		case in.c.Ready():
			return true
		}
		if !a.opt.Shared {
			return false
		}
	}
	return false
}

// Arm tells the senders how this side sleeps.
func (s *anchorSleeper) Arm(mode shm.Mode) {
	for _, in := range s.a.in {
		in.c.Settle()
		in.c.Arm(mode)
		if !s.a.opt.Shared {
			return
		}
	}
}

// Disarm tells them that it is awake.
func (s *anchorSleeper) Disarm() {
	for _, in := range s.a.in {
		in.c.Disarm()
		if !s.a.opt.Shared {
			return
		}
	}
}
