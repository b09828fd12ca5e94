// Package local is the lane between two ends in one process: a ring on the
// heap, and doorbells that are channels.
package local

import (
	"errors"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Lane implements lane.Lane and lane.Sharer.
type Lane struct{}

// New makes the lane; it has no state.
func New() *Lane { return &Lane{} }

// Name is "local".
func (*Lane) Name() string { return "local" }

// Offer offers the lane within one process.
func (*Lane) Offer(peer *control.Peer) ([]byte, error) {
	if peer != nil {
		return nil, errors.New("the receiver is another node")
	}
	return nil, nil
}

// Close does nothing.
func (*Lane) Close() error { return nil }

// pair is a ring and the two bells of its ends.
type pair struct {
	ring         *ring.Ring
	session      ring.Session
	consumerBell shm.Bell
	seg          shm.Segment
}

func newPair(g ring.Geometry) (*pair, error) {
	seg, err := shm.NewHeap(g.SegmentSize())
	if err != nil {
		return nil, err
	}
	r, err := ring.Format(seg.Bytes(), g)
	if err != nil {
		return nil, err
	}
	return &pair{ring: r, session: ring.Session{Tag: 1}, consumerBell: shm.NewLocalBell(), seg: seg}, nil
}

// Accept makes the ring.
func (*Lane) Accept(req lane.Request) (*lane.End, lane.Reply, error) {
	p, err := newPair(req.Geometry)
	if err != nil {
		return nil, lane.Reply{}, err
	}
	producerBell := shm.NewLocalBell()
	return &lane.End{
		Ring: p.ring, Session: p.session,
		Wake:    ringer(producerBell),
		Parker:  shm.NewParker(req.Wait, nil, p.consumerBell),
		Bell:    p.consumerBell,
		Bytes:   len(p.seg.Bytes()),
		Release: func(bool, uint64) {},
	}, lane.Reply{Session: p.session, Local: p.sender(producerBell)}, nil
}

// sender is what Connect needs of the pair.
func (p *pair) sender(bell shm.Bell) *lane.InProcess {
	return &lane.InProcess{
		Ring: p.ring, ConsumerBell: p.consumerBell, ProducerBell: bell,
		Bytes: len(p.seg.Bytes()), Release: func() {},
	}
}

// Connect makes the sending end of the same ring.
func (*Lane) Connect(req lane.Request, reply lane.Reply) (*lane.End, error) {
	l := reply.Local
	if l == nil {
		return nil, errors.New("the reply comes from another process")
	}
	wake := shm.NewWaker(l.ConsumerWord, l.ConsumerBell)
	return &lane.End{
		Ring: l.Ring, Session: reply.Session, Record: reply.Record, Gen: reply.Generation,
		Wake:    func(a ring.Attention) { wake.Wake(a.Mode()) },
		Parker:  shm.NewParker(req.Wait, nil, l.ProducerBell),
		Bell:    l.ProducerBell,
		Bytes:   l.Bytes,
		Release: func(bool, uint64) { l.Release() },
	}, nil
}

func ringer(b shm.Bell) func(ring.Attention) {
	return func(a ring.Attention) {
		if a.Mode() != 0 {
			b.Ring()
		}
	}
}
