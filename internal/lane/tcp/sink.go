package tcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// sink writes the frames that arrive into the receiver's ring: it is the ring's
// producer, called by the connection's reader, and the sender of its credits,
// called by the ring's consumer.
//
// It keeps the producers' attention word armed, so that each new head of the
// consumer calls credit; credit arms it again.
type sink struct {
	lane    *Lane
	key     key
	peer    *control.Peer
	ring    *ring.Ring
	session ring.Session
	bell    shm.Bell
	fail    func(error)

	mu     sync.Mutex // the reader against close
	p      *ring.Producer
	closed bool

	takes compress.Set // not none: messages are encoded
	limit int          // bytes of a message's frames at most

	arrived atomic.Uint64 // position behind the last frame in the ring
}

// take imports a message's frames.
func (s *sink) take(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.p == nil {
		s.p = s.ring.Producer(s.session, func(a ring.Attention) {
			if a.Mode() != 0 {
				s.bell.Ring()
			}
		})
		s.p.Arm(shm.Doorbell)
	}
	if err := s.frames(b); err != nil {
		s.closed = true
		if errors.Is(err, ring.ErrClosed) {
			return // by the consumer, who tells the sender
		}
		if errors.Is(err, ring.ErrCorrupt) || errors.Is(err, compress.ErrCorrupt) {
			err = fmt.Errorf("%w: %w", fault.ErrCorrupt, err)
		}
		s.fail(err)
		return
	}
	s.arrived.Store(s.p.Position())
	if s.p.Ended() {
		// The sender waits to hear that its end has arrived.
		s.send(s.ring.Head(), ^uint64(0))
		return
	}
}

// plain holds what messages were decoded to, by whichever reader needs it.
var plain = sync.Pool{New: func() any { return new([]byte) }}

// frames decodes a message and imports its frames.
func (s *sink) frames(b []byte) error {
	if s.takes == 0 {
		return s.p.Import(b)
	}
	buf := plain.Get().(*[]byte)
	defer plain.Put(buf)
	out, err := compress.Decode((*buf)[:0], b, s.takes, s.limit)
	if err != nil {
		return err
	}
	if b[0] != byte(compress.None) {
		*buf = out // not the message's own memory
	}
	return s.p.Import(out)
}

// credit tells the sender how far the consumer is. The consumer calls it, and
// so may whoever closes it.
func (s *sink) credit(ring.Attention) {
	s.ring.ArmProducer(shm.Doorbell)
	s.send(s.ring.Head(), s.arrived.Load())
}

// creditTimeout bounds how long a connection that does not move may hold up the
// consumer.
const creditTimeout = 5 * time.Second

func (s *sink) send(head, arrived uint64) {
	b := make([]byte, 0, creditSize)
	b = binary.LittleEndian.AppendUint64(b, s.key.outlet)
	b = binary.LittleEndian.AppendUint64(b, head)
	b = binary.LittleEndian.AppendUint64(b, arrived)
	ctx, cancel := context.WithTimeout(context.Background(), creditTimeout)
	defer cancel()
	if err := s.peer.Send(ctx, "stream_credit", control.Message{Payload: b}); err != nil {
		s.lane.log.Debug("credit not sent", "worker", s.peer.WorkerID(), "error", err)
	}
}

func (s *sink) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.lane.mu.Lock()
	delete(s.lane.sinks, s.key)
	s.lane.mu.Unlock()
}
