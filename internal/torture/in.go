package torture

import (
	"context"
	"errors"

	"github.com/novastream/novastream"
)

// arrival is what a receiver was told, of either payload.
type arrival struct {
	kind   novastream.Kind
	sender novastream.SenderID
	seq    uint64
	known  bool // seq is
	id, n  uint64
	whole  bool
	size   int
	err    error
}

// in is the receiving end of a stream of either payload.
type in interface {
	// pull waits for something to arrive and tells all that it took.
	pull(ctx context.Context, tell func(arrival)) error
	Handle() novastream.Handle
	Cancel(string) error
	Stop(context.Context) error
	Close() error
}

// sharers is how many senders a shared stream takes: always the same, so that few
// sizes of segments are prepared.
const sharers = 4

func newIn(h *host, s *StreamPlan) (in, error) {
	opts := []novastream.CreateOption{
		novastream.Capacity(s.Slots), novastream.Lanes(h.lane.lane), novastream.AttachTimeout(0), novastream.MessageTimeout(s.Timeout),
	}
	if s.Shared {
		opts = append(opts, novastream.Shared(sharers))
	}
	if s.OneRing {
		opts = append(opts, novastream.OneRing())
	}
	if s.S2 {
		opts = append(opts, novastream.Compression(novastream.CompressionS2))
	}
	if s.Values {
		rx, err := novastream.Create[Value](h.Streaming, opts...)
		return &valuesIn{Receiver: rx, mode: s.Mode}, err
	}
	rx, err := novastream.CreateBytes(h.Streaming, opts...)
	return &framesIn{BytesReceiver: rx, mode: s.Mode}, err
}

// lend is how many frames are taken together.
const lend = 16

type valuesIn struct {
	*novastream.Receiver[Value]
	mode   int
	sender novastream.SenderID // attached last
}

func (r *valuesIn) pull(ctx context.Context, tell func(arrival)) error {
	told := false
	one := func(v *Value) {
		told = true
		tell(arrival{kind: novastream.KindData, sender: r.sender, id: v.ID, n: v.Number, whole: v.whole(), size: valueBytes})
	}
	switch r.mode {
	case 1:
		for v := range r.Slots(lend) {
			one(v)
		}
	case 2:
		if l, err := r.Borrow(lend); err == nil {
			for i := range l.Len() {
				one(l.At(i))
			}
			l.Release()
		}
	}
	if told {
		return nil
	}
	f, err := r.Recv(ctx)
	if err != nil {
		return err
	}
	if f.Kind == novastream.KindAttached {
		r.sender = f.Sender
	}
	v := &f.Value
	tell(arrival{f.Kind, f.Sender, f.Seq, true, v.ID, v.Number, v.whole(), valueBytes, f.Err})
	return nil
}

type framesIn struct {
	*novastream.BytesReceiver
	mode int
	buf  []byte
}

func (r *framesIn) pull(ctx context.Context, tell func(arrival)) error {
	if r.mode > 0 {
		l, err := r.Borrow(lend / r.mode)
		if err == nil {
			for _, f := range l.Frames {
				tell(arrived(f))
			}
			l.Release()
			return nil
		}
		if !errors.Is(err, novastream.ErrEmpty) {
			return err
		}
	}
	f, err := r.Recv(ctx, r.buf)
	if err != nil {
		return err
	}
	r.buf = f.Value
	tell(arrived(f))
	return nil
}

func arrived(f novastream.Frame[[]byte]) arrival {
	a := arrival{kind: f.Kind, sender: f.Sender, seq: f.Seq, known: true, size: len(f.Value), err: f.Err}
	if f.Kind == novastream.KindData {
		a.id, a.n, a.whole = read(f.Value)
	}
	return a
}
