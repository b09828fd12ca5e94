package stream

import (
	"sync"

	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
)

// pool is a ring that the senders of one anchor share. Its lock is taken by the
// consumer for each look, and by whoever admits a sender or learns of a death.
type pool struct {
	shared lane.Shared
	end    *lane.End
	in     *Inbound // owns end: what is sealed, cancelled and released

	mu      sync.Mutex
	col     *ring.Collector
	members []*Inbound // by record
	gens    []uint16
}

func newPool(a *Anchor, shared lane.Shared) *pool {
	end := shared.End()
	p := &pool{shared: shared, end: end}
	p.col = end.Ring.Collector(end.Session, end.Wake)
	n := end.Ring.Geometry().Producers
	p.members, p.gens = make([]*Inbound, n+1), make([]uint16, n+1)
	p.in = &Inbound{a: a, end: end, c: &p.col.Consumer, announced: true}
	return p
}

// admit finds a free record for a sender.
func (p *pool) admit(in *Inbound) (ok bool) {
	p.in.touch(func() { ok = p.take(in) })
	return ok
}

func (p *pool) take(in *Inbound) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := 1; r < len(p.members); r++ {
		if p.members[r] != nil {
			continue
		}
		p.gens[r]++
		if !p.col.Admit(r, p.gens[r]) {
			continue
		}
		p.members[r] = in
		in.record, in.gen = r, p.gens[r]
		return true
	}
	return false
}

// leave tells the collector that a member is gone: dead for certain, or not.
func (p *pool) leave(record int, dead bool) {
	p.in.touch(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if dead {
			p.col.Dead(record)
		} else {
			p.col.Expel(record)
		}
	})
}

// next takes the next frame, with the member it is of.
func (p *pool) next() (ring.Frame, *Inbound, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.col.Next()
	if !ok {
		return f, nil, false
	}
	in := p.members[f.Record]
	if f.Kind.Terminal() {
		p.members[f.Record] = nil
	}
	return f, in, true
}

func (p *pool) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.col.Ready()
}

func (p *pool) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.col.Err()
}

// attached is how many members there are.
func (p *pool) attached() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.col.Members()
}
