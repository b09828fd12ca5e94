package novastream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
	"github.com/novastream/novastream/ring"
)

// Receiver is the receiving end of a stream of T.
//
// One goroutine at a time may call its methods, but for Handle, Cancel, Stop
// and Close, which any may call at any time.
type Receiver[T any] struct {
	c      *ring.Consumer // never nil: where the next value of an exclusive stream lies, if it lies in place
	base   uint64         // position of the sender's value number 0
	sender SenderID
	in     *stream.Inbound
	a      *stream.Anchor
	none   *ring.Consumer
	codec  Codec[T]
	last   T      // kept so that a codec can reuse what it points to
	frame  []byte // what a codec decodes: the sender's process may write to the ring meanwhile
	wakes  Strategy
	err    error
}

// Create makes a stream that this process receives.
//
// Its errors are ErrConfig and ErrLimit, which name the value and what to do.
func Create[T any](s *Streaming, opts ...CreateOption) (*Receiver[T], error) {
	c := newCreateConfig(opts)
	payload, codec, err := payloadOf[T](c.codec)
	if err != nil {
		return nil, err
	}
	a, err := c.make(s, payload)
	if err != nil {
		return nil, err
	}
	none := ring.NoConsumer()
	r := &Receiver[T]{c: none, none: none, a: a, codec: codec, wakes: c.Wait}
	if runtime.GOMAXPROCS(0) == 1 && c.Wait == Hybrid {
		r.wakes = Park // nobody could write while this side looks
	}
	runtime.AddCleanup(r, func(a *stream.Anchor) { a.Close() }, a)
	return r, nil
}

// Handle names the stream for senders.
func (r *Receiver[T]) Handle() Handle { return r.a.Handle() }

// TryRecv takes the next frame, of any kind, if there is one; ErrEmpty if not.
// After the last frame it answers io.EOF for ever, and ErrClosed after Close. A
// frame that the codec cannot decode is ErrDecode, once, and ends the stream.
func (r *Receiver[T]) TryRecv() (f Frame[T], err error) {
	err = r.next(&f)
	return f, err
}

// next takes the next frame into *f. That way the frame of an inlined TryRecv is
// the caller's own variable, and not copied to it.
func (r *Receiver[T]) next(f *Frame[T]) error {
	if v, pos := ring.Peek1[T](r.c); v != nil {
		if ring.Holds1(r.c, v, pos) {
			r.take(f, v, pos)
			return nil
		}
		ring.Pass1(r.c, v, pos)
	}
	return r.tryRecv(f)
}

// take makes *f of a value in its slot and gives the slot back. It copies by wide
// moves: the slot was written by another core, and whoever copies the frame next
// does so by wide moves too.
func (r *Receiver[T]) take(f *Frame[T], v *T, pos uint64) {
	f.Value = *v
	ring.Pass1(r.c, v, pos+1)
	f.Kind, f.Sender, f.Seq = KindData, r.sender, pos-r.base
}

// tryRecv is the slow half of TryRecv.
func (r *Receiver[T]) tryRecv(f *Frame[T]) error {
	if pos, ok := ring.Get(r.c, &f.Value); ok {
		f.Kind, f.Sender, f.Seq = KindData, r.sender, pos-r.base
		return nil
	}
	if r.err != nil {
		return r.err
	}
	r.leaveFast()
	ev, ok, err := r.a.Next()
	if err != nil {
		return err
	}
	if !ok {
		r.enterFast()
		return fault.ErrEmpty
	}
	f.Kind, f.Sender, f.Seq, f.Err = ev.Kind, SenderID(ev.Sender), ev.Seq, ev.Err
	if ev.Kind == KindData {
		err = r.decode(ev.Data, f)
		r.a.Release()
		if err != nil {
			return r.undecodable(ev, err)
		}
	}
	r.enterFast()
	return nil
}

func (r *Receiver[T]) decode(b []byte, f *Frame[T]) error {
	if r.codec == nil {
		if !ring.CopyOut(&f.Value, b) {
			return fmt.Errorf("%d bytes", len(b))
		}
		return nil
	}
	if !r.codecCopies() {
		r.frame = append(r.frame[:0], b...)
		b = r.frame
	}
	if err := r.codec.Decode(b, &r.last); err != nil {
		return err
	}
	f.Value = r.last
	var zero T
	r.last = zero // the value is the caller's now
	return nil
}

// codecCopies tells whether the codec reads each byte once and does nothing else.
func (r *Receiver[T]) codecCopies() bool {
	switch any(r.codec).(type) {
	case bytesCodec, stringCodec:
		return true
	}
	return false
}

// undecodable ends the stream over a frame that is no value.
func (r *Receiver[T]) undecodable(ev stream.Event, err error) error {
	err = fmt.Errorf("%w: %v: sender %d, frame %d: %w", fault.ErrDecode, r.a.Handle(), ev.Sender, ev.Seq, err)
	_ = r.a.Cancel(err.Error())
	_, _, _ = r.a.Next() // its own cancellation: it releases the sessions
	r.err = io.EOF
	return err
}

// leaveFast tells the session what was taken on the fast path; enterFast goes
// back to it.
func (r *Receiver[T]) leaveFast() {
	if r.in != nil {
		r.in.Count(r.c.Position() - r.base - r.in.Seq())
		r.in, r.c = nil, r.none
	}
}

func (r *Receiver[T]) enterFast() {
	if r.codec != nil {
		return
	}
	if c, in := r.a.Fast(); c != nil {
		r.c, r.in, r.sender, r.base = c, in, SenderID(in.Sender()), c.Position()-in.Seq()
	}
}

// Recv takes the next frame, and waits for one as long as ctx allows. For the
// rest it is as TryRecv.
func (r *Receiver[T]) Recv(ctx context.Context) (f Frame[T], err error) {
	err = r.wait(ctx, &f)
	return f, err
}

// A receiver that does not park at once looks at its next slot polls times, a few
// microseconds, between two looks at everything else that there may be. One that
// only spins lets other goroutines run every yields such rounds: for a goroutine
// that is locked to its thread that is a hand-over between threads.
const (
	polls  = 1024
	yields = 16
)

// wait is next that waits. A value that comes soon is met by the look at its slot
// and nothing else: that is what a round trip consists of.
func (r *Receiver[T]) wait(ctx context.Context, f *Frame[T]) error {
	for round := 1; ; round++ {
		if r.wakes != Park && r.in != nil && r.poll(f) {
			return nil
		}
		if err := r.next(f); err != fault.ErrEmpty {
			return err
		}
		if r.wakes != Spin || r.in == nil {
			if err := r.a.Wait(ctx); err != nil {
				return err
			}
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if round%yields == 0 {
			runtime.Gosched()
		}
	}
}

// poll looks at the next slot until it holds a value, polls times.
func (r *Receiver[T]) poll(f *Frame[T]) bool {
	v, pos := ring.Peek1[T](r.c)
	if v == nil {
		r.c.Arrives(polls)
		return false
	}
	for range polls {
		if ring.Holds1(r.c, v, pos) {
			r.take(f, v, pos)
			return true
		}
	}
	ring.Pass1(r.c, v, pos)
	return false
}

// Frames yields the frames as Recv gives them. It ends after the stream's last
// frame, or with one error, such as the context's.
func (r *Receiver[T]) Frames(ctx context.Context) iter.Seq2[Frame[T], error] {
	return func(yield func(Frame[T], error) bool) {
		for {
			f, err := r.Recv(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// Values yields the values alone. It ends cleanly when the stream was
// finalized; every other end is an error, given with the zero T. Soft errors
// are given so too, and the loop may go on after them, as it may on a shared
// stream after the end of one sender.
func (r *Receiver[T]) Values(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for f, err := range r.Frames(ctx) {
			switch {
			case err != nil:
				yield(f.Value, err)
				return
			case f.Kind == KindData:
				if !yield(f.Value, nil) {
					return
				}
			case f.Err != nil:
				if !yield(f.Value, fmt.Errorf("sender %d: %w", f.Sender, f.Err)) {
					return
				}
			}
		}
	}
}

// Slots yields the values that are there in place, up to max, each the caller's
// during its body. It yields none when the next frame is not a value, or there
// is none, or the stream is shared or has a codec: TryRecv tells. It inlines
// whole, and is the fastest way to receive.
func (r *Receiver[T]) Slots(max int) iter.Seq[*T] { return ring.Each[T](r.c, max) }

// Loan is values in place, lent together.
type Loan[T any] struct {
	r *Receiver[T]
	n int
}

// Borrow lends the values that are there in place, up to max, until Release.
// The sender cannot use their slots again until then, and the receiver reads
// nothing else. ErrEmpty says that the next frame is not a value, or that there
// is none: TryRecv tells. The note at Slots on whom it serves holds here too.
func (r *Receiver[T]) Borrow(max int) (Loan[T], error) {
	n := r.c.Lend(max)
	if n == 0 {
		if r.c.Lent() {
			return Loan[T]{}, fmt.Errorf("%w: a loan is out: release it first", fault.ErrMisuse)
		}
		return Loan[T]{}, fault.ErrEmpty
	}
	return Loan[T]{r, n}, nil
}

// Len is how many values were lent.
func (l Loan[T]) Len() int { return l.n }

// At is the i-th value, in the ring, until Release; nil for an i that is not
// below Len. The sender's process can still write to it, if it is hostile.
func (l Loan[T]) At(i int) *T {
	if uint(i) >= uint(l.n) {
		return nil
	}
	return ring.LentAt[T](l.r.c, i)
}

// Release gives the slots back.
func (l Loan[T]) Release() {
	if l.n > 0 {
		l.r.a.Return(l.r.c)
	}
}

// Cancel ends the stream now: what has not been read is not delivered, senders
// get ErrCancelled with the reason, one that waits in Send at once, and the
// receiver gets KindCancelled. Only the first call counts.
func (r *Receiver[T]) Cancel(reason string) error {
	defer runtime.KeepAlive(r) // or its cleanup would close it under the call
	return r.a.Cancel(reason)
}

// Stop ends the stream in order: senders get ErrCancelled, what they had
// committed is still delivered, then KindCancelled. It does not wait for that;
// read on.
func (r *Receiver[T]) Stop(ctx context.Context) error {
	defer runtime.KeepAlive(r) // or its cleanup would close it under the call
	return r.a.Stop(ctx)
}

// Close ends the stream and releases it; senders get ErrPeerDead. Values that
// are lent stay readable until they are released.
func (r *Receiver[T]) Close() error { return r.a.Close() }
