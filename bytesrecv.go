package novastream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
)

// BytesReceiver is the receiving end of a stream of frames of bytes, which may
// be read in the ring itself. The note at Receiver on goroutines holds.
type BytesReceiver struct {
	a    *stream.Anchor
	kept stream.Event // an event that Borrow found and Recv is to tell
	has  bool
	loan []Frame[[]byte]
	out  bool
}

// CreateBytes is Create for a stream of bytes.
func CreateBytes(s *Streaming, opts ...CreateOption) (*BytesReceiver, error) {
	c := newCreateConfig(opts)
	if c.codec != nil {
		return nil, fmt.Errorf("%w: a stream of bytes has no codec", fault.ErrConfig)
	}
	a, err := c.make(s, stream.Payload{Codec: "bytes", Type: "[]byte"})
	if err != nil {
		return nil, err
	}
	r := &BytesReceiver{a: a}
	runtime.AddCleanup(r, func(a *stream.Anchor) { a.Close() }, a)
	return r, nil
}

// Handle names the stream for senders.
func (r *BytesReceiver) Handle() Handle { return r.a.Handle() }

// TryRecv takes the next frame, of any kind, if there is one; its Value is
// appended to dst[:0]. For the rest it is as Receiver.TryRecv.
func (r *BytesReceiver) TryRecv(dst []byte) (f Frame[[]byte], err error) {
	ev, ok := r.kept, r.has
	if r.out {
		return f, fmt.Errorf("%w: a loan is out: release it first", fault.ErrMisuse)
	}
	if !ok {
		if ev, ok, err = r.a.Next(); err != nil {
			return f, err
		}
		if !ok {
			return f, fault.ErrEmpty
		}
	}
	r.kept, r.has = stream.Event{}, false
	f = Frame[[]byte]{Kind: ev.Kind, Sender: SenderID(ev.Sender), Seq: ev.Seq, Err: ev.Err}
	if ev.Kind == KindData {
		f.Value = append(dst[:0], ev.Data...)
		r.a.Release()
	}
	return f, nil
}

// Recv takes the next frame, and waits for one as long as ctx allows.
func (r *BytesReceiver) Recv(ctx context.Context, dst []byte) (f Frame[[]byte], err error) {
	for {
		if f, err = r.TryRecv(dst); err != fault.ErrEmpty {
			return f, err
		}
		if err := r.a.Wait(ctx); err != nil {
			return f, err
		}
	}
}

// BytesLoan is frames in place, lent together.
type BytesLoan struct {
	Frames []Frame[[]byte] // of KindData, each Value in the ring
	r      *BytesReceiver
}

// Borrow lends the KindData frames of one sender that are there, up to max, in
// place, until Release; the receiver reads nothing else until then. ErrEmpty
// says that there is no such frame next: TryRecv tells what there is.
func (r *BytesReceiver) Borrow(max int) (BytesLoan, error) {
	switch {
	case r.out:
		return BytesLoan{}, fmt.Errorf("%w: a loan is out: release it first", fault.ErrMisuse)
	case r.has:
		return BytesLoan{}, fault.ErrEmpty
	}
	r.loan = r.loan[:0]
	if max <= 0 {
		return BytesLoan{}, fault.ErrEmpty
	}
	ev, ok, err := r.a.Next()
	switch {
	case err != nil:
		return BytesLoan{}, err
	case !ok:
		return BytesLoan{}, fault.ErrEmpty
	case ev.Kind != KindData:
		r.kept, r.has = ev, true
		return BytesLoan{}, fault.ErrEmpty
	}
	for data := ev.Data; ok; data, ok = r.a.More() {
		// Field by field: a frame that is built elsewhere and copied here waits for
		// its own stores.
		n := len(r.loan)
		r.loan = append(r.loan, Frame[[]byte]{})
		f := &r.loan[n]
		f.Kind, f.Sender, f.Seq, f.Value = KindData, SenderID(ev.Sender), ev.Seq+uint64(n), data
		if n+1 == max {
			break
		}
	}
	r.out = true
	return BytesLoan{r.loan, r}, nil
}

// Release gives the frames back.
func (l BytesLoan) Release() {
	if l.r != nil && l.r.out {
		l.r.out = false
		l.r.a.Release()
	}
}

// Wait waits until there is something to receive, as long as ctx allows.
func (r *BytesReceiver) Wait(ctx context.Context) error {
	if r.has {
		return nil
	}
	return r.a.Wait(ctx)
}

// Reader is the stream as a reader: the frames' bytes one after another. It
// ends with io.EOF when the stream was finalized; every other end, and a soft
// error, is an error. Close cancels what has not ended.
func (r *BytesReceiver) Reader(ctx context.Context) io.ReadCloser {
	return &bytesReader{ctx: ctx, r: r}
}

type bytesReader struct {
	ctx  context.Context
	r    *BytesReceiver
	loan BytesLoan
	i, n int // frame of the loan, and bytes of it that were read
}

func (b *bytesReader) Read(dst []byte) (n int, err error) {
	for len(dst) > 0 {
		for b.i < len(b.loan.Frames) {
			v := b.loan.Frames[b.i].Value
			k := copy(dst[n:], v[b.n:])
			n += k
			if b.n += k; b.n < len(v) {
				return n, nil
			}
			b.i, b.n = b.i+1, 0
		}
		b.loan.Release()
		b.loan, b.i = BytesLoan{}, 0
		if n > 0 {
			return n, nil
		}
		if b.loan, err = b.r.Borrow(64); err == nil {
			continue
		}
		if err != fault.ErrEmpty {
			return 0, err
		}
		b.loan = BytesLoan{}
		f, err := b.r.Recv(b.ctx, nil)
		switch {
		case err != nil:
			return 0, err
		case f.Err != nil:
			return 0, f.Err
		case f.Kind == KindData:
			b.loan = BytesLoan{Frames: []Frame[[]byte]{f}}
		case f.Kind == KindFinalized:
			return 0, io.EOF
		}
	}
	return n, nil
}

func (b *bytesReader) Close() error {
	b.loan.Release()
	return errors.Join(b.r.Cancel("the reader was closed"), b.r.Close())
}

// Cancel is as Receiver.Cancel.
func (r *BytesReceiver) Cancel(reason string) error {
	defer runtime.KeepAlive(r) // or its cleanup would close it under the call
	return r.a.Cancel(reason)
}

// Stop is as Receiver.Stop.
func (r *BytesReceiver) Stop(ctx context.Context) error {
	defer runtime.KeepAlive(r) // or its cleanup would close it under the call
	return r.a.Stop(ctx)
}

// Close is as Receiver.Close.
func (r *BytesReceiver) Close() error { return r.a.Close() }
