package novastream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
	"github.com/novastream/novastream/ring"
)

// Sender is the sending end of a stream of T.
//
// One goroutine at a time may call its methods, but for Close, Done, Err, Lane,
// Compression, Stats, ID and Handle, which any may call at any time.
type Sender[T any] struct {
	p *ring.Producer // never nil; it diverts what is not in place in a ring of the sender's own
	o *stream.Outlet
	w *writer[T]
}

// Attach attaches to the stream that h names; T must be what its receiver
// takes. The context bounds the attach alone.
//
// Its errors are ErrBadHandle, ErrNoSuchStream, ErrStaleHandle,
// ErrAlreadyAttached, ErrTooManySenders, ErrTypeMismatch, ErrFinalized,
// ErrCancelled, ErrClosed, ErrTimeout, ErrLaneUnavailable and ErrLimit, each
// the same from another process; ErrPeerDead when the receiver's process ends
// meanwhile; and those of control.Node.Peer.
func Attach[T any](ctx context.Context, s *Streaming, h Handle, opts ...AttachOption) (*Sender[T], error) {
	var c attachConfig
	for _, o := range opts {
		o.attach(&c)
	}
	if c.err != nil {
		return nil, c.err
	}
	payload, codec, err := payloadOf[T](c.codec)
	if err != nil {
		return nil, err
	}
	c.Payload = payload
	o, err := s.reg.Attach(ctx, h, c.AttachOptions)
	if err != nil {
		return nil, err
	}
	x := &Sender[T]{p: o.P, o: o, w: &writer[T]{o: o, codec: codec}}
	if codec != nil || o.P == nil {
		x.p = ring.NoProducer()
	}
	ring.Divert(x.p, &x.w.value, x.w.send)
	// A sender that is forgotten is closed, so that its receiver hears of it.
	runtime.AddCleanup(x, (*stream.Outlet).Forget, o)
	return x, nil
}

// TrySend sends *v if there is room now. ErrFull leaves the item the caller's
// and the stream in order: try again, or wait with Send. Other errors are final:
// ErrCancelled, ErrClosed, ErrPeerDead, ErrTransport, ErrCorrupt.
//
// A value whose fields were just written one by one is copied word by word; a
// composite literal assigned to *v just before may still be written by wider
// moves, which stalls the copy. Reserve and Slots avoid the copy.
func (x *Sender[T]) TrySend(v *T) error { return ring.Put(x.p, v) }

// Send sends v, and waits for room as long as ctx allows. Nil means that v is
// in the ring, or in a bounded buffer of the transport. The errors are those of
// TrySend but ErrFull, and the context's.
func (x *Sender[T]) Send(ctx context.Context, v T) error {
	for {
		err := x.TrySend(&v)
		if err == nil || !errors.Is(err, fault.ErrFull) {
			return err
		}
		if err := x.o.Wait(ctx, x.w.need()); err != nil {
			return err
		}
	}
}

// Reserve lends the next slot, to be written in place and published by Commit.
// T must lie in place. The errors are those of TrySend, and ErrMisuse. In a stream with
// OneRing Close gives the slot up, so that it holds no other sender up: nobody may write
// to it then.
func (x *Sender[T]) Reserve() (*T, error) {
	if v := ring.Claim[T](x.p); v != nil {
		return v, nil
	}
	return x.reserve()
}

// reserve is the slow half of Reserve.
func (x *Sender[T]) reserve() (*T, error) {
	if v := ring.Reserve1[T](x.p); v != nil {
		return v, nil
	}
	switch {
	case x.w.codec != nil:
		return nil, fmt.Errorf("%w: values of this type do not lie in the ring: use Send", fault.ErrMisuse)
	case x.w.held || x.p.Lent():
		return nil, fmt.Errorf("%w: a reservation is open: commit it first", fault.ErrMisuse)
	case x.o.C != nil:
		if v := ring.ReserveShared[T](x.o.C); v != nil {
			x.w.held = true
			return v, nil
		}
	}
	return nil, x.o.Refused()
}

// Commit publishes what Reserve lent. It answers ErrMisuse when nothing was
// lent, and what has ended the session, if that was meanwhile.
func (x *Sender[T]) Commit() error {
	var none *T
	if pos, ok := ring.Store1(x.p, none); ok && ring.Give1(x.p, none, pos) {
		return nil
	}
	return x.commit()
}

// commit is the slow half of Commit.
func (x *Sender[T]) commit() error {
	if x.w.held {
		x.w.held = false
		return x.o.Commit(-1, ring.Data)
	}
	if !x.p.Settle1() {
		if err := x.o.Err(); err != nil {
			return err
		}
		return fmt.Errorf("%w: nothing is reserved", fault.ErrMisuse)
	}
	if x.o.Failed() {
		return x.o.After()
	}
	return nil
}

// Slots yields free slots in place, up to max, each the caller's during its
// body: fill it, and it is published as the body ends; a break gives the last
// one back. It yields none when there is no room or the session has ended:
// Progress tells which. A session that is ended from elsewhere while the loop runs,
// by the receiver or by Close, ends behind what was published before: what the loop
// publishes then may not arrive, and Err tells after it. It is the fastest way to
// send, and inlines whole:
//
//	for p := range tx.Slots(64) {
//		p.Price, p.Size = next()
//	}
//
// It serves values that lie in place in a ring of the sender's own: with a
// codec, and in a stream with OneRing, it yields none. A body that panics
// leaves its slot reserved: only Close is of use then.
func (x *Sender[T]) Slots(max int) iter.Seq[*T] { return ring.Slots[T](x.p, max) }

// Batch is slots that were reserved together.
type Batch[T any] struct {
	x *Sender[T]
	n int
}

// ReserveBatch lends up to max slots, to be written in place and published
// together by the batch's Commit. It lends at least one, or answers an error of
// Reserve. The note at Slots on whom it serves holds here too.
func (x *Sender[T]) ReserveBatch(max int) (Batch[T], error) {
	if n := x.p.Lend(max); n > 0 {
		return Batch[T]{x, n}, nil
	}
	switch {
	case max < 1:
		return Batch[T]{}, fmt.Errorf("%w: a batch of %d", fault.ErrMisuse, max)
	case x.w.codec != nil || x.o.C != nil:
		return Batch[T]{}, fmt.Errorf("%w: batches need values in place and a ring of the sender's own", fault.ErrMisuse)
	case x.p.Lent():
		return Batch[T]{}, fmt.Errorf("%w: a reservation is open: commit it first", fault.ErrMisuse)
	}
	return Batch[T]{}, x.o.Refused()
}

// Len is how many slots the batch has.
func (b Batch[T]) Len() int { return b.n }

// At is the batch's i-th slot, the caller's until Commit; nil for an i that is
// not below Len.
func (b Batch[T]) At(i int) *T {
	if uint(i) >= uint(b.n) {
		return nil
	}
	return ring.At[T](b.x.p, i)
}

// Commit publishes the first n slots, so that the receiver sees all of them or
// none, and gives the others back. The errors are those of Sender.Commit.
func (b Batch[T]) Commit(n int) error {
	if !b.x.p.Publish(n) {
		return fmt.Errorf("%w: commit of %d of a batch of %d that is open", fault.ErrMisuse, n, b.n)
	}
	if b.x.o.Failed() {
		return b.x.o.After()
	}
	return nil
}

// SoftError tells the receiver of an error in order with the values, without
// ending the stream. The text is cut off at 1 KiB, and in a small ring earlier.
func (x *Sender[T]) SoftError(ctx context.Context, err error) error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.SoftError(ctx, err.Error())
}

// Progress tells without sending whether the session goes on: nil, or why not.
func (x *Sender[T]) Progress() error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.Progress()
}

// Done is closed when nothing can be sent any more; Err says why.
func (x *Sender[T]) Done() <-chan struct{} { return x.o.Done() }

// Err is why nothing can be sent any more, nil while it can.
func (x *Sender[T]) Err() error { return x.o.Err() }

// Lane is the lane that was chosen at attach.
func (x *Sender[T]) Lane() Lane { return Lane(x.o.Lane()) }

// Compression is how what this sender sends is compressed on its way:
// CompressionNone where both ends did not agree on more, or the lane crosses no
// network.
func (x *Sender[T]) Compression() Compressor { return Compressor(x.o.Traffic().Compression.String()) }

// Stats counts what has been carried over a network. A few of the frames sent
// last may not be counted yet, until Finalize or Detach has answered.
func (x *Sender[T]) Stats() SenderStats { return statsOf(x.o) }

// ID is the number by which the receiver knows this sender.
func (x *Sender[T]) ID() SenderID { return SenderID(x.o.Sender()) }

// Handle is the stream's handle.
func (x *Sender[T]) Handle() Handle { return x.o.Handle() }

// Finalize says that this sender has sent everything, which on an exclusive
// stream is its end. When it answers nil, everything is where neither this
// process nor its host can lose it any more: in the receiver's ring.
func (x *Sender[T]) Finalize(ctx context.Context) error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.End(ctx, ring.Finalized)
}

// Detach leaves the stream: another sender may attach as soon as it answers. For
// the rest it is as Finalize.
func (x *Sender[T]) Detach(ctx context.Context) error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.End(ctx, ring.Detached)
}

// Close gives the sender up. After Finalize or Detach it does nothing; without,
// the receiver gets what was committed, then KindDropped.
func (x *Sender[T]) Close() error { return x.o.Close() }
