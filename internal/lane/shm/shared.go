package shm

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// shared is a ring in a memfd that several senders share, each with a bell of
// its own; the receiver's bell is everybody's.
type shared struct {
	*kit
	session ring.Session
	wait    shm.Strategy

	mu     sync.Mutex
	bells  map[int]shm.Bell // by record
	users  int              // of the mapping: the receiver and senders of this process
	closed bool
}

// Share makes a ring for several senders.
func (l *Lane) Share(req lane.Request) (lane.Shared, error) {
	k, err := l.make(req.Geometry, req.HugePages)
	if err != nil {
		return nil, err
	}
	return &shared{kit: k, session: ring.Session{Tag: 1}, wait: req.Wait, bells: map[int]shm.Bell{}, users: 1}, nil
}

// End is the receiving end.
func (s *shared) End() *lane.End {
	end := receiving(s.kit, s.session, s.wait)
	word := shm.NewWaker(s.ring.ProducerWake(), nil)
	end.Wake = func(a ring.Attention) {
		word.Wake(a.Mode())
		if a.Mode()&shm.Doorbell == 0 {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range s.bells {
			b.Ring()
		}
	}
	end.Release = func(bool, uint64) {
		s.mu.Lock()
		s.closed = true
		for r, b := range s.bells {
			if b.FD() >= 0 {
				b.Close()
			}
			delete(s.bells, r)
		}
		s.mu.Unlock()
		s.leaveMemory()
	}
	return end
}

// Join adds a sender.
func (s *shared) Join(req lane.Request, record int, generation uint32) (lane.Reply, error) {
	if req.Peer == nil {
		return s.joinHere(record, generation)
	}
	if !req.Peer.Local() {
		return lane.Reply{}, errors.New("the sender is on another host")
	}
	b, err := shm.NewBell()
	if err != nil {
		return lane.Reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		b.Close()
		return lane.Reply{}, errors.New("the ring is closed")
	}
	fds, err := descriptors(s.seg, s.consumerBell, b)
	if err != nil {
		b.Close()
		return lane.Reply{}, err
	}
	s.bells[record] = b
	return lane.Reply{
		Session: s.session, Data: binary.AppendUvarint(nil, s.id),
		FDs: fds, Record: record, Generation: generation,
	}, nil
}

// joinHere adds a sender of this process, which uses the same mapping: it must
// have released it before that goes.
func (s *shared) joinHere(record int, generation uint32) (lane.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return lane.Reply{}, errors.New("the ring is closed")
	}
	b := shm.NewLocalBell()
	s.bells[record] = b
	s.users++
	return lane.Reply{
		Session: s.session, Record: record, Generation: generation,
		Local: &lane.InProcess{
			Ring: s.ring, ConsumerWord: s.ring.ConsumerWake(), ConsumerBell: s.consumerBell, ProducerBell: b,
			Bytes: len(s.seg.Bytes()), Release: s.leaveMemory,
		},
	}, nil
}

// leaveMemory closes the segment after the last who uses this mapping.
func (s *shared) leaveMemory() {
	s.mu.Lock()
	s.users--
	last := s.users == 0
	s.mu.Unlock()
	if last {
		s.close()
	}
}

// Leave forgets a sender.
func (s *shared) Leave(record int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.bells[record]; b != nil {
		delete(s.bells, record)
		if b.FD() >= 0 { // else its owner is in this process
			b.Close()
		}
	}
}
