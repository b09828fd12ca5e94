package rdma

import (
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// sink is the receiving end: it pays credits, and says when its consumer sleeps.
// Frames need nothing of it: the consumer finds them by the announcement in its own
// memory.
//
// Going to sleep, without a wake-up being lost. The two sides share no word that a
// barrier could order, so arming is a message, and it says what the sleeper has
// seen:
//
//	the consumer arms its attention word; the sink sends idle(seen), the position of
//	the last announcement; the consumer looks at the announcement once more, and
//	sleeps.
//	[The pump that hears idle(seen): if it has announced more than that, it
//	announces that again, with an immediate; else its next announcement has one.]
//
// What the pump announced before it heard is either seen by the last look, or is
// more than seen. An idle that was not answered yet is not sent again: the
// immediate that answers it wakes the consumer, which then looks, and sends another.
// The shard takes back that there is one before it wakes, and the consumer arms its
// attention word before it asks whether there is one: so one of them sees the other.
//
// A producer that sleeps for room does the same with roomless(head) (see pump).
//
// Credits: the consumer publishes its head in the ring; the sink, which keeps the
// producers' attention word armed so as to be called then, writes it to the
// sender. As long as less than half a ring is under way it waits for more, because
// then the producer has room whatever it wants to send: its frames have one slot.
type sink struct {
	session
	bell shm.Bell

	// Guarded by conn.mu.
	idleOut  bool   // an idle was sent, or is due, and not answered
	idleDue  bool   // and it was not sent yet
	idleSeen uint64 // the position that it tells
	asleep   bool   // the producer sleeps until the head is not as below
	headSeen uint32
	sent     uint64 // the head that was written last
	farewell bool   // the sender was told that the ring is closed
}

// accept makes the receiving end.
func (l *Lane) accept(req lane.Request, takes compress.Set) (*sink, lane.Reply, error) {
	s := &sink{bell: shm.NewLocalBell()}
	s.to = toSender
	if err := s.make(l, req, s, rdma.RemoteWrite, 0); err != nil {
		return nil, lane.Reply{}, err
	}
	// Not from 0: see ring.Remote.
	start := ring.Session{Start: uint64(s.geo.Slots), Tag: 1}
	s.sent = start.Start
	s.ring = s.ring.Remote(ring.Remote{
		Announced: wordAt(s.region, s.words+offAnnounced), Armed: s.armed, Expand: expander(takes),
	})
	b := newWriter().place(place{s.qp.Address(), s.region.Addr(), s.region.RKey()}).uint(uint64(takes))
	return s, lane.Reply{Session: start, Data: b}, nil
}

// connected begins the session: the sender has made its end. The consumer exists.
func (s *sink) connected(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.up {
		return
	}
	s.remote, s.up = p, true
	s.ring.ArmProducer(shm.Doorbell)
	s.flush()
}

// armed is called by the consumer that is about to sleep.
func (s *sink) armed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.idleOut {
		return
	}
	s.idleOut, s.idleDue = true, true
	s.idleSeen = posOf(load(s.region, s.words+offAnnounced))
	s.flush()
}

// credit is called when the consumer has published a new head, or has closed.
func (s *sink) credit(ring.Attention) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return
	}
	s.ring.ArmProducer(shm.Doorbell)
	s.flush()
}

// flush posts what is due: a closing and its reason, a credit, an idle.
func (s *sink) flush() {
	if s.farewell || s.room() < maxBatch || s.ended() {
		return
	}
	if a := s.ring.ConsumerAttention(); a.Closed() {
		s.farewell = true
		if a.Cancelled() {
			s.add(rdma.OpWrite, rdma.SegmentOf(s.region, ringReason, 4+ring.MaxReason), s.remote.remote+offReason, s.remote.rkey, 0)
		}
		s.write(rdma.OpWriteImm, uint64(a), s.remote.remote+offState, imm(immClosed, 0))
		s.post()
		return
	}
	head := s.ring.Head()
	switch {
	case s.asleep && low(head) != s.headSeen:
		s.asleep = false
		s.write(rdma.OpWriteImm, head, s.remote.remote+offHead, imm(immCredit, 0))
		s.sent = head
	case head != s.sent && s.due():
		s.write(rdma.OpWrite, head, s.remote.remote+offHead, 0)
		s.sent = head
	}
	if s.idleDue {
		s.idleDue = false
		s.notify(imm(immIdle, s.idleSeen))
	}
	if s.n > 0 {
		s.post()
	}
}

// due tells whether a new head is to be written now.
func (s *sink) due() bool {
	if s.geo.Wide() {
		return true // a frame may need any number of slots
	}
	under := low(posOf(load(s.region, s.words+offAnnounced)) - s.sent)
	return uint64(under) >= uint64(s.geo.Slots)/2
}

// ended tells whether the sender has announced its end: it wants nothing any more.
func (s *sink) ended() bool {
	return ring.AnnouncesEnd(load(s.region, s.words+offAnnounced))
}

// arrived takes an immediate of the sender.
func (s *sink) arrived(v uint32) {
	switch v >> immKind {
	case immAnnounced:
		s.idleOut = false
		s.bell.Ring()
	case immRoomless:
		s.asleep, s.headSeen = true, v&immMask
	default:
		s.fail(badImmediate(v), false)
	}
}

func (s *sink) finished(uint64) {}

func (s *sink) complete() bool { return s.ended() }

// breaksUnlessEnded is breaks for what the sender has told; it answers whether its
// end has arrived.
func (s *sink) breaksUnlessEnded(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false // the lane has taken note of its end
	}
	ended := s.ended()
	if !ended {
		s.fail(err, true)
	}
	return ended
}

func (s *sink) broke(err error, told bool) { s.told(err, told) }

// release ends the session. The consumer is sealed and in no call.
func (s *sink) release() {
	s.lane.mu.Lock()
	if s.lane.sinks[s.key] == s {
		delete(s.lane.sinks, s.key)
	}
	s.mu.Lock()
	if s.ended() {
		s.lane.arrived.add(s.key)
	}
	s.mu.Unlock()
	s.lane.mu.Unlock()
	s.closing(func() {
		s.close()
		s.lane.left()
	})
}
