package novastream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
	"github.com/novastream/novastream/ring"
)

// BytesSender is the sending end of a stream of frames of bytes, which may be
// written in the ring itself. The note at Sender on goroutines holds.
type BytesSender struct {
	o    *stream.Outlet
	open bool
}

// AttachBytes is Attach for a stream of bytes: one made by CreateBytes, or by
// Create with []byte or string.
func AttachBytes(ctx context.Context, s *Streaming, h Handle, opts ...AttachOption) (*BytesSender, error) {
	var c attachConfig
	for _, o := range opts {
		o.attach(&c)
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.codec != nil {
		return nil, fmt.Errorf("%w: a stream of bytes has no codec", fault.ErrConfig)
	}
	c.Payload = stream.Payload{Codec: "bytes", Type: "[]byte"}
	o, err := s.reg.Attach(ctx, h, c.AttachOptions)
	if err != nil {
		return nil, err
	}
	x := &BytesSender{o: o}
	runtime.AddCleanup(x, (*stream.Outlet).Forget, o)
	return x, nil
}

// MaxFrame is the largest frame that the stream's ring can hold, in bytes.
func (x *BytesSender) MaxFrame() int { return x.o.MaxFrame() }

// Reserve lends room for a frame of n bytes, contiguous and in the ring, until
// Commit. ErrFull says that there is no room now, ErrFrameTooLarge that there
// never will be; the rest is as Sender.TrySend. In a stream with OneRing Close gives
// the reservation up, so that it holds no other sender up: nobody may write to it then.
func (x *BytesSender) Reserve(n int) ([]byte, error) {
	if x.open {
		return nil, fmt.Errorf("%w: a reservation is open: commit it first", fault.ErrMisuse)
	}
	b, err := x.o.Reserve(n)
	x.open = err == nil
	return b, err
}

// ReserveWait is Reserve, and waits for room as long as ctx allows.
func (x *BytesSender) ReserveWait(ctx context.Context, n int) ([]byte, error) {
	for {
		b, err := x.Reserve(n)
		if err == nil || !errors.Is(err, fault.ErrFull) {
			return b, err
		}
		if err := x.Wait(ctx, n); err != nil {
			return nil, err
		}
	}
}

// Commit publishes the first n bytes of the reservation as a frame; with 0 it
// gives the reservation back.
func (x *BytesSender) Commit(n int) error {
	if !x.open {
		return fmt.Errorf("%w: nothing is reserved", fault.ErrMisuse)
	}
	kind := ring.Data
	if n == 0 {
		kind = 0
	}
	err := x.o.Commit(n, kind)
	x.open = errors.Is(err, fault.ErrMisuse)
	return err
}

// TrySend sends a frame if there is room now. The errors are those of Reserve.
func (x *BytesSender) TrySend(b []byte) error {
	if !x.open && x.o.Put(b) {
		return nil
	}
	return x.put(b)
}

// put is the slow half of TrySend.
func (x *BytesSender) put(b []byte) error {
	x.o.Mine(true)
	defer x.o.Mine(false)
	dst, err := x.Reserve(len(b))
	if err != nil {
		return err
	}
	ring.CopyIn(dst, b)
	x.open = false
	return x.o.Commit(len(b), ring.Data)
}

// Send sends a frame, and waits for room as long as ctx allows.
func (x *BytesSender) Send(ctx context.Context, b []byte) error {
	for {
		err := x.TrySend(b)
		if err == nil || !errors.Is(err, fault.ErrFull) {
			return err
		}
		if err := x.Wait(ctx, len(b)); err != nil {
			return err
		}
	}
}

// Wait waits until there may be room for a frame of n bytes, as long as ctx
// allows, or until the session has ended.
func (x *BytesSender) Wait(ctx context.Context, n int) error { return x.o.Wait(ctx, x.o.Need(n)) }

// Writer is the sender as a writer: each Write is cut into frames of at most
// 64 KiB or a quarter of the ring, and waits for room as long as ctx allows.
// Close finalizes.
func (x *BytesSender) Writer(ctx context.Context) io.WriteCloser { return &bytesWriter{ctx, x} }

type bytesWriter struct {
	ctx context.Context
	x   *BytesSender
}

func (w *bytesWriter) Write(b []byte) (n int, err error) {
	most := max(min(64<<10, w.x.MaxFrame()/4), 1)
	for len(b) > 0 {
		k := min(len(b), most)
		if err := w.x.Send(w.ctx, b[:k]); err != nil {
			return n, err
		}
		n += k
		b = b[k:]
	}
	return n, nil
}

func (w *bytesWriter) Close() error { return w.x.Finalize(w.ctx) }

// SoftError is as Sender.SoftError.
func (x *BytesSender) SoftError(ctx context.Context, err error) error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.SoftError(ctx, err.Error())
}

// Progress is as Sender.Progress.
func (x *BytesSender) Progress() error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.Progress()
}

// Done is as Sender.Done.
func (x *BytesSender) Done() <-chan struct{} { return x.o.Done() }

// Err is as Sender.Err.
func (x *BytesSender) Err() error { return x.o.Err() }

// Lane is as Sender.Lane.
func (x *BytesSender) Lane() Lane { return Lane(x.o.Lane()) }

// Compression is as Sender.Compression.
func (x *BytesSender) Compression() Compressor {
	return Compressor(x.o.Traffic().Compression.String())
}

// Stats is as Sender.Stats.
func (x *BytesSender) Stats() SenderStats { return statsOf(x.o) }

// ID is as Sender.ID.
func (x *BytesSender) ID() SenderID { return SenderID(x.o.Sender()) }

// Handle is the stream's handle.
func (x *BytesSender) Handle() Handle { return x.o.Handle() }

// Finalize is as Sender.Finalize.
func (x *BytesSender) Finalize(ctx context.Context) error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.End(ctx, ring.Finalized)
}

// Detach is as Sender.Detach.
func (x *BytesSender) Detach(ctx context.Context) error {
	defer runtime.KeepAlive(x) // or its cleanup would close it under the call
	return x.o.End(ctx, ring.Detached)
}

// Close is as Sender.Close.
func (x *BytesSender) Close() error { return x.o.Close() }
