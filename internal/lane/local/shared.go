package local

import (
	"sync"

	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// shared is a ring on the heap that several senders share.
type shared struct {
	*pair
	wait shm.Strategy

	mu    sync.Mutex
	bells map[int]shm.Bell // by record
}

// Share makes a ring for several senders of this process.
func (*Lane) Share(req lane.Request) (lane.Shared, error) {
	p, err := newPair(req.Geometry)
	if err != nil {
		return nil, err
	}
	return &shared{pair: p, wait: req.Wait, bells: map[int]shm.Bell{}}, nil
}

// End is the receiving end.
func (s *shared) End() *lane.End {
	return &lane.End{
		Ring: s.ring, Session: s.session,
		Wake: func(a ring.Attention) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, b := range s.bells {
				b.Ring()
			}
		},
		Parker:  shm.NewParker(s.wait, nil, s.consumerBell),
		Bell:    s.consumerBell,
		Bytes:   len(s.seg.Bytes()),
		Release: func(bool, uint64) {},
	}
}

// Join adds a sender.
func (s *shared) Join(_ lane.Request, record int, generation uint32) (lane.Reply, error) {
	b := shm.NewLocalBell()
	s.mu.Lock()
	s.bells[record] = b
	s.mu.Unlock()
	return lane.Reply{Session: s.session, Local: s.sender(b), Record: record, Generation: generation}, nil
}

// Leave forgets a sender.
func (s *shared) Leave(record int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bells, record)
}
