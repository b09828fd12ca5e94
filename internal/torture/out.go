package torture

import (
	"context"
	"errors"

	"github.com/novastream/novastream"
)

// out is the sending end of a stream of either payload.
type out interface {
	// put sends the frames numbered from..to-1 and keeps the round's book.
	put(ctx context.Context, from, to uint64) error
	Finalize(context.Context) error
	Detach(context.Context) error
	Close() error
	ID() novastream.SenderID
	Stats() novastream.SenderStats
}

func newOut(ctx context.Context, h *host, r *round) (out, error) {
	opts := []novastream.AttachOption{novastream.Lanes(h.lane.lane)}
	if r.s.S2 {
		opts = append(opts, novastream.Compression(novastream.CompressionS2))
	}
	if r.s.Values {
		tx, err := novastream.Attach[Value](ctx, h.Streaming, r.h, opts...)
		if err != nil {
			return nil, err
		}
		return &values{tx, r}, nil
	}
	tx, err := novastream.AttachBytes(ctx, h.Streaming, r.h, opts...)
	if err != nil {
		return nil, err
	}
	return &frames{tx, r}, nil
}

// lost keeps what the error says may be lost.
func (r *round) lost(err error) {
	var l *novastream.LostError
	if errors.As(err, &l) {
		r.rec.set(sLost, l.Slots+1)
	}
}

// values is a stream of values in place.
type values struct {
	*novastream.Sender[Value]
	r *round
}

const valueBytes = 56

func (o *values) put(ctx context.Context, from, to uint64) error {
	mode := o.r.x.Mode
	if o.r.s.OneRing {
		mode = 2 // the others serve rings of one sender
	}
	// Where the session may be ended from outside the loop, what the loop writes then
	// may come behind the end, and its error tells.
	ended := o.r.x.End == Abandon || o.r.s.Act != Read
	for n := from; n < to; {
		sent := n
		switch mode {
		case 0:
			for v := range o.Slots(int(to - n)) {
				if n > sent && !ended { // the one before is published
					o.r.sent(n-1, valueBytes)
				}
				o.r.began(n)
				o.r.value(v, n)
				n++
			}
			if err := o.Err(); err != nil && ended {
				return err
			}
			if n > sent && !ended {
				o.r.sent(n-1, valueBytes)
			} else if n > sent {
				o.r.sent(n-1, valueBytes*int(n-sent))
			}
		case 1:
			b, err := o.ReserveBatch(int(to - n))
			if errors.Is(err, novastream.ErrFull) {
				break
			}
			if err != nil {
				return err
			}
			for i := range b.Len() {
				o.r.value(b.At(i), n)
				n++
			}
			o.r.began(n - 1)
			if err := b.Commit(b.Len()); err != nil {
				return err
			}
			o.r.sent(n-1, valueBytes*b.Len())
		}
		if n > sent {
			continue
		}
		if err := o.one(ctx, n); err != nil {
			return err
		}
		n++
	}
	return nil
}

// one sends one value: in place if there is room, else it waits.
func (o *values) one(ctx context.Context, n uint64) error {
	if v, err := o.reserve(); err == nil {
		o.r.value(v, n)
		o.r.began(n)
		if err := o.Commit(); err != nil {
			return err
		}
	} else if !errors.Is(err, novastream.ErrFull) {
		return err
	} else {
		var v Value
		o.r.value(&v, n)
		o.r.began(n)
		if err := o.Send(ctx, v); err != nil {
			return err
		}
	}
	o.r.sent(n, valueBytes)
	return nil
}

// mayReserve tells whether the sender may hold a reservation: not where it is closed by
// another goroutine in a ring that it shares.
func (r *round) mayReserve() bool { return !r.s.OneRing || r.x.End != Abandon }

func (o *values) reserve() (*Value, error) {
	if !o.r.mayReserve() {
		return nil, novastream.ErrFull
	}
	return o.Reserve()
}

// frames is a stream of bytes.
type frames struct {
	*novastream.BytesSender
	r *round
}

func (o *frames) put(ctx context.Context, from, to uint64) error {
	for n := from; n < to; n++ {
		size := 1 + o.r.r.IntN(64)
		if o.r.r.IntN(8) == 0 {
			size = 1 + o.r.r.IntN(o.r.x.MaxSize)
		}
		size = min(frameHeader+size, o.MaxFrame())
		if err := o.one(ctx, n, size); err != nil {
			return err
		}
		o.r.rec.add(sFramed, o.r.l.framed(size))
		o.r.sent(n, size)
	}
	return nil
}

func (o *frames) one(ctx context.Context, n uint64, size int) error {
	if o.r.x.Mode == 0 || !o.r.mayReserve() {
		b := make([]byte, size)
		o.r.frame(b, n)
		o.r.began(n)
		return o.Send(ctx, b)
	}
	extra := 0
	if o.r.x.Mode == 2 { // more is reserved than is committed
		extra = min(o.r.r.IntN(100), o.MaxFrame()-size)
	}
	for {
		b, err := o.Reserve(size + extra)
		if err == nil {
			o.r.frame(b[:size], n)
			o.r.began(n)
			return o.Commit(size)
		}
		if !errors.Is(err, novastream.ErrFull) {
			return err
		}
		if err := o.Wait(ctx, size+extra); err != nil {
			return err
		}
	}
}
