package stream

import (
	"github.com/novastream/novastream/ring"
)

// Return gives back what the fast path has lent of c.
func (a *Anchor) Return(c *ring.Consumer) {
	a.lender = c
	a.Release()
}

// NextData is Next for a caller that keeps what it was lent. More says that it
// has frames already: then only further ones of the same ring are taken.
func (a *Anchor) NextData(more bool) (Event, bool, error) {
	if !more {
		return a.Next()
	}
	defer a.exit()
	if !a.guard.enter() || a.done || a.signal.Load() || a.lender == nil {
		return Event{}, false, nil
	}
	for _, in := range a.in {
		if in.c != a.lender {
			continue
		}
		if a.ring != nil && in == a.ring.in {
			return Event{}, false, nil
		}
		if !in.c.Waiting() {
			return Event{}, false, nil
		}
		f, ok := in.c.Next()
		if !ok {
			return Event{}, false, nil
		}
		ev := a.event(in, in.c, f, Event{Sender: in.sender})
		return ev, true, nil
	}
	return Event{}, false, nil
}

// Seq is the number of the sender's next frame. The consumer calls it.
func (in *Inbound) Seq() uint64 { return in.seq }
