package stream

import (
	"fmt"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
)

// join gives a sender a record in the anchor's shared ring, which the first
// sender causes to be made: in memory that other processes can map, if any lane
// of this node can do so.
func (a *Anchor) join(in *Inbound, req lane.Request) (lane.Reply, error) {
	a.mu.Lock()
	p := a.pool
	a.mu.Unlock()
	if p == nil {
		var err error
		if p, err = a.makePool(req); err != nil {
			return lane.Reply{}, err
		}
	}
	switch ok, live := p.admit(in); {
	case !live:
		return lane.Reply{}, fmt.Errorf("%w: %v", fault.ErrClosed, a.h)
	case !ok:
		return lane.Reply{}, fmt.Errorf("%w: %v: no record of the shared ring is free", fault.ErrTooManySenders, a.h)
	}
	reply, err := p.shared.Join(req, in.record, in.gen)
	if err != nil {
		p.retract(in)
		if !p.in.touch(func() {}) {
			err = fmt.Errorf("%w: %v: %w", fault.ErrClosed, a.h, err)
		}
		return lane.Reply{}, limit(err)
	}
	reply.Record, reply.Generation = in.record, in.gen
	return reply, nil
}

func (a *Anchor) makePool(req lane.Request) (*pool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pool != nil {
		return a.pool, nil
	}
	size := req.Geometry.SegmentSize()
	if err := a.reg.reserve(size); err != nil {
		return nil, err
	}
	// The lanes come best first: of those that can share, the last one reaches
	// farthest.
	var errs error
	for i := len(a.reg.lanes) - 1; i >= 0; i-- {
		l, ok := a.reg.lanes[i].(lane.Sharer)
		if !ok || !allowed(a.opt.Lanes, a.reg.lanes[i].Name()) {
			continue
		}
		shared, err := l.Share(lane.Request{Geometry: req.Geometry, Wait: req.Wait, HugePages: req.HugePages})
		if err != nil {
			errs = err
			continue
		}
		a.pool = newPool(a, shared)
		a.reg.huge.Add(int64(a.pool.end.HugeBytes))
		a.arrivals = append(a.arrivals, a.pool.in)
		a.all = append(a.all, a.pool.in)
		return a.pool, nil
	}
	a.reg.memory.Add(-int64(size))
	if errs == nil {
		errs = fmt.Errorf("%w: no lane here has memory that senders can share", fault.ErrLaneUnavailable)
	}
	return nil, limit(errs)
}
