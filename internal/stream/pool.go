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
	gens    []uint32
	refused uint64              // of the collector's, counted already
	past    map[holder]*Inbound // ended, not yet told, and their records are others' already
	watches []func() bool       // by record: stop waiting for the death of its holder
}

// holder is one holder of a record, as frames name it.
type holder struct {
	record int
	gen    uint16
}

func newPool(a *Anchor, shared lane.Shared) *pool {
	end := shared.End()
	p := &pool{shared: shared, end: end}
	p.col = end.Ring.Collector(end.Session, end.Wake)
	n := end.Ring.Geometry().Producers
	p.members, p.gens, p.past = make([]*Inbound, n+1), make([]uint32, n+1), map[holder]*Inbound{}
	p.watches = make([]func() bool, n+1)
	p.in = &Inbound{a: a, end: end, c: &p.col.Consumer, announced: true}
	p.in.stops = append(p.in.stops, p.unwatchAll)
	return p
}

// admit finds a record for a sender: a free one, or one whose holder has ended or
// is dead, although the consumer has not come to that end yet. It is not live when the
// stream has been closed meanwhile.
func (p *pool) admit(in *Inbound) (ok, live bool) {
	live = p.in.touch(func() { ok = p.take(in) })
	return ok, live
}

func (p *pool) take(in *Inbound) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ended := range []bool{false, true} {
		for r := 1; r < len(p.members); r++ {
			old := p.members[r]
			if (old != nil) != ended || !p.col.Admit(r, p.gens[r]+1) {
				continue
			}
			if ended {
				p.past[holder{r, uint16(old.gen)}] = old
				p.shared.Leave(r)
			}
			p.unwatch(r)
			p.gens[r]++
			p.members[r] = in
			in.record, in.gen = r, p.gens[r]
			return true
		}
	}
	return false
}

// leave tells the collector that a member is gone: dead for certain, or not. Who
// has left its record to another says nothing about it.
func (p *pool) leave(in *Inbound, dead bool) {
	p.in.touch(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case p.gens[in.record] != in.gen:
		case dead:
			p.col.Dead(in.record)
		default:
			p.col.Expel(in.record)
		}
	})
}

// retract takes back what admit has given, which the sender has not got.
func (p *pool) retract(in *Inbound) {
	p.in.touch(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.members[in.record] == in {
			p.col.Retract(in.record)
			p.members[in.record] = nil
			p.shared.Leave(in.record)
		}
	})
}

// watch waits for the death of a member's process, for as long as the member may
// hold a claim: one that was expelled alive is everybody's obstacle until then.
func (p *pool) watch(in *Inbound) {
	stop := in.peer.OnDeath(in.dead)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watches != nil && p.members[in.record] == in {
		p.watches[in.record] = stop
		return
	}
	stop()
}

// unwatch ends the watch of a record's holder. The lock is held.
func (p *pool) unwatch(record int) {
	if stop := p.watches[record]; stop != nil {
		stop()
		p.watches[record] = nil
	}
}

func (p *pool) unwatchAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.watches {
		p.unwatch(r)
	}
	p.watches = nil
}

// next takes the next frame, with the member it is of.
func (p *pool) next() (ring.Frame, *Inbound, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.col.Next()
	if n := p.col.Refused(); n != p.refused {
		p.in.a.reg.refused.Add(n - p.refused)
		p.refused = n
	}
	if !ok {
		return f, nil, false
	}
	in := p.members[f.Record]
	if in == nil || uint16(in.gen) != f.Generation {
		h := holder{f.Record, f.Generation}
		in = p.past[h]
		if f.Kind.Terminal() {
			delete(p.past, h)
		}
	} else if f.Kind.Terminal() {
		p.members[f.Record] = nil
		p.shared.Leave(f.Record)
		if p.watches != nil && !p.col.Expelled(f.Record) {
			p.unwatch(f.Record)
		}
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
