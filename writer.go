package novastream

import (
	"fmt"

	"github.com/novastream/novastream/internal/stream"
	"github.com/novastream/novastream/ring"
)

// writer is what a Sender does with a value that the fast path has refused: what
// needs a codec, what goes into a shared ring, and what there is no room for. It
// knows nothing of its Sender, which is closed when nobody refers to it.
type writer[T any] struct {
	o     *stream.Outlet
	codec Codec[T]
	value T    // what is to be sent
	guess int  // bytes that a value took lately, with a codec
	held  bool // a reservation in a shared ring is open
}

// send sends value.
func (w *writer[T]) send() error {
	switch {
	case w.codec != nil:
		return w.encode()
	case w.o.C != nil:
		if ring.PutShared(w.o.C, &w.value) == nil {
			return nil
		}
	}
	return w.o.Refused()
}

// need is what a waiting sender waits for: slots, or bytes in a shared ring.
func (w *writer[T]) need() int {
	switch {
	case w.codec != nil:
		return w.o.Need(w.guess)
	case w.o.C != nil:
		return ring.SizeOf(&w.value)
	}
	return 1
}

// encode sends value by the codec, in place where its bytes fit in what it was
// given at first.
func (w *writer[T]) encode() error {
	w.o.Mine(true)
	defer w.o.Mine(false)
	room := w.guess
	for {
		b, err := w.o.Reserve(room)
		if err != nil {
			return err
		}
		out, err := w.codec.Append(b[:0:len(b)], w.value)
		if err != nil {
			_ = w.o.Commit(0, 0)
			return fmt.Errorf("novastream: codec %s: %w", w.codec.Name(), err)
		}
		if len(out) > len(b) {
			_ = w.o.Commit(0, 0)
			w.guess, room = len(out), len(out)
			continue
		}
		// Falls slowly, so that values of varied size are not encoded twice.
		w.guess = max(len(out), w.guess-w.guess/64)
		return w.o.Commit(len(out), ring.Data)
	}
}
