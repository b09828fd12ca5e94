package stream

import (
	"errors"
	"fmt"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/ring"
)

// Reserve lends room for a frame of n bytes until Commit. The owner calls it.
// Until then the session's memory stays, whatever ends the session.
func (o *Outlet) Reserve(n int) (b []byte, err error) {
	// The producer's own mark keeps the memory; no guard is needed.
	if o.P != nil {
		if b, err = o.P.Reserve(n); err == nil {
			return b, nil
		}
	}
	return o.reserve(n)
}

// reserve is the slow half of Reserve: it tells why there is no room.
func (o *Outlet) reserve(n int) (b []byte, err error) {
	defer o.exit()
	if !o.guard.enter() {
		return nil, o.Err()
	}
	if o.C != nil {
		b, err = o.C.Reserve(n)
	} else {
		b, err = o.P.Reserve(n)
	}
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, ring.ErrFull):
		if err := o.look(); err != nil {
			return nil, err
		}
		return nil, fault.ErrFull
	case errors.Is(err, ring.ErrTooLarge):
		return nil, fmt.Errorf("%w: %d bytes, this stream's largest frame has %d: raise Capacity or SlotSize at Create", fault.ErrFrameTooLarge, n, o.MaxFrame())
	case errors.Is(err, ring.ErrMisuse):
		return nil, fmt.Errorf("%w: %w", fault.ErrMisuse, err)
	}
	if e := o.look(); e != nil {
		return nil, e
	}
	return nil, err
}

// Mine marks a reservation as a call's own, from before Reserve until after Commit: the
// call ends by itself, so in a shared ring Close leaves the claim to it, and with it the
// end. The owner calls it.
func (o *Outlet) Mine(on bool) {
	if o.C == nil {
		return
	}
	o.mine.Store(on)
	if !on && o.failed.Load() && o.C.Lent() { // it has panicked, and Close has been here
		_ = o.Commit(0, 0)
	}
}

// Put sends a frame of bytes if that takes no more than a copy. The owner calls it;
// the answer false is Reserve's to explain, as is a session that has failed.
func (o *Outlet) Put(b []byte) bool {
	return o.P != nil && !o.failed.Load() && o.P.Send(b)
}

// Commit publishes the first n bytes of the reservation, all of a value in place
// for n below 0, as a frame of the kind; kind 0 gives it back. The owner calls
// it. The error is what has ended the session meanwhile, or fault.ErrMisuse.
func (o *Outlet) Commit(n int, kind ring.Kind) (err error) {
	if quiet, _ := o.quiesced(); quiet {
		return o.unreserved(errors.New("nothing is reserved"))
	}
	// The reservation keeps the memory; no guard is needed.
	switch {
	case kind == 0 && o.C != nil:
		o.C.Abandon()
	case kind == 0:
		o.P.Abandon()
	case o.C != nil:
		if n < 0 {
			n = o.end.Ring.Geometry().Payload
		}
		err = o.C.Commit(n, kind)
	default:
		err = o.P.Commit(n, kind)
	}
	if err != nil {
		return o.unreserved(err)
	}
	if o.failed.Load() {
		return o.After()
	}
	return nil
}

// unreserved tells why there is no reservation to commit: whoever closes a sender
// gives up what it has claimed in a shared ring; else its owner has none.
func (o *Outlet) unreserved(err error) error {
	if o.failed.Load() {
		o.free()
		return o.After()
	}
	return fmt.Errorf("%w: %w", fault.ErrMisuse, err)
}

// After is called by the owner when it has given back what was lent and the
// session has ended meanwhile: it releases the memory, which waited for that.
func (o *Outlet) After() error {
	if o.guard.idle() {
		o.release(false)
	}
	return o.Err()
}

// MaxFrame is the largest frame of the session's ring.
func (o *Outlet) MaxFrame() int { return o.geo.MaxFrame() }

// Need is what Wait is to wait for, for a frame of n bytes.
func (o *Outlet) Need(n int) int {
	if o.C != nil {
		return min(n, o.geo.MaxFrame())
	}
	return min((n+o.geo.HeaderSize()+o.geo.SlotSize-1)/o.geo.SlotSize, o.geo.Slots-1)
}
