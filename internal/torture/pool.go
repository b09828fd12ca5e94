package torture

import (
	"sync"
	"time"
)

// pool keeps children of one lane: those that an episode has left alive, and a few
// that were started ahead.
type pool struct {
	t    *Torture
	l    *Lane
	mu   sync.Mutex
	idle []*child
	wg   sync.WaitGroup
}

// mostJobs is how many episodes a child may live through, and ahead how many are
// started ahead.
const (
	mostJobs = 40
	ahead    = 2
)

// get answers a child that is ready, and starts another one for those to come.
func (p *pool) get() (*child, error) {
	p.mu.Lock()
	var c *child
	if n := len(p.idle); n > 0 {
		c, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	if len(p.idle) < ahead {
		p.wg.Go(p.start)
	}
	p.mu.Unlock()
	if c == nil {
		var err error
		if c, err = p.t.spawn(p.l); err != nil {
			return nil, err
		}
	}
	if c.used++; c.used > 1 {
		return c, nil
	}
	if _, err := c.next(func(r reply) bool { return r.Ready }, hang); err != nil {
		c.signal(9)
		<-c.gone
		return nil, err
	}
	return c, nil
}

func (p *pool) start() {
	c, err := p.t.spawn(p.l)
	if err != nil {
		return // who needs one will be told
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

// put takes a child back that an episode has left alive.
func (p *pool) put(c *child) {
	if c.used >= mostJobs && !p.t.Soak {
		p.retire(c)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

// retire has a child end, and tells when it does so otherwise than it should.
func (p *pool) retire(c *child) {
	if p.t.Soak {
		p.t.grown(p.l, c)
	}
	if err := c.end(hang); err != nil {
		p.t.find(p.l, nil, finding{findEnd, "a child that was let go has ended with: " + err.Error()})
	}
}

// drain has all of them end.
func (p *pool) drain() {
	p.wg.Wait()
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		p.wg.Go(func() { p.retire(c) })
	}
	p.wg.Wait()
}

// hang is how long nothing may happen.
const hang = 40 * time.Second
