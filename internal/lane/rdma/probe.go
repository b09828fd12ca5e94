package rdma

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/rdma"
)

// probe is a queue pair to the peer's device that carries nothing. While there are
// sessions each side writes no bytes through it now and then: completions are no
// sign of a peer's life, but their failure tells that the path is gone, also to
// a side that has nothing to send. It costs two small packets a link and
// probeEvery, however many sessions there are, and while nothing else is posted no more
// than that every probeIdle.
type probe struct {
	link *link
	id   uint64 // given by the side that made it
	out  bool   // that is this side
	conn conn

	// Guarded by conn.mu.
	timer   *time.Timer
	waiting bool
	until   uint64        // sessions that there were when it last set out
	reached chan struct{} // closed when the first write is done
	first   bool
	idle    bool          // the timer is set to probeIdle
	broken  chan struct{} // closed when the queue pair has failed
	once    sync.Once
}

// probeEvery is how often a link with sessions is tried, and probeRetries how often a
// probe is sent again: with the defaults it fails after a quarter of a second, so a lost
// link is noticed within one, and one that is cut for 150 ms is not lost.
var probeEvery = 600 * time.Millisecond

// probeIdle is the same for a link whose sessions have posted nothing since the last
// time.
var probeIdle = 4 * probeEvery

// The bits of link.busy: each probe takes its own back.
const (
	outProbe = 1 << iota
	inProbe
	anyProbe = outProbe | inProbe
)

const probeRetries = 3

var lastProbe atomic.Uint32

func (l *link) newProbe(id uint64, out bool) (*probe, error) {
	p := &probe{link: l, id: id, out: out, reached: make(chan struct{}), broken: make(chan struct{})}
	p.conn.probe = true
	if err := p.conn.open(l, p); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *probe) connect(ctx context.Context, address []byte) error {
	opt := p.link.lane.opt
	if opt.RetryCount == 0 {
		opt.RetryCount = probeRetries
	}
	if err := p.conn.qp.Connect(ctx, address, opt); err != nil {
		return err
	}
	p.conn.mu.Lock()
	defer p.conn.mu.Unlock()
	p.conn.up = true
	return nil
}

// try writes once and waits until it is done.
func (p *probe) try(ctx context.Context) error {
	p.conn.mu.Lock()
	p.send()
	p.conn.mu.Unlock()
	select {
	case <-p.reached:
		return nil
	case <-p.broken:
		p.conn.mu.Lock()
		defer p.conn.mu.Unlock()
		return p.conn.failed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send writes, unless a write is under way. The lock is held.
func (p *probe) send() {
	if p.waiting || p.conn.room() == 0 {
		return
	}
	p.waiting = true
	p.until = p.link.count.Load()
	p.conn.add(rdma.OpWrite, rdma.Segment{}, 0, 0, 0)
	p.conn.signalLast()
	p.conn.post()
}

// start begins to probe for as long as the link has sessions. A nil probe has
// nothing to start or close.
func (p *probe) start() {
	if p == nil {
		return
	}
	p.conn.mu.Lock()
	defer p.conn.mu.Unlock()
	if p.timer == nil && !p.conn.dead {
		p.timer = time.AfterFunc(probeEvery, p.tick)
	}
}

func (p *probe) tick() {
	some := p.link.sessions() > 0
	p.conn.mu.Lock()
	defer p.conn.mu.Unlock()
	if p.conn.dead || !some {
		p.timer = nil
		return
	}
	p.send()
	bit := uint32(inProbe)
	if p.out {
		bit = outProbe
	}
	every := probeEvery
	if p.idle = p.link.busy.And(^bit)&bit == 0; p.idle {
		every = probeIdle
	}
	p.timer.Reset(every)
}

// traffic takes note that a session has posted: a link that was idle is probed soon.
// It is called once in probeEvery at most, with that session's lock held.
func (l *link) traffic() {
	l.busy.Store(anyProbe)
	l.mu.Lock()
	out, in := l.out, l.in
	l.mu.Unlock()
	out.hurry()
	in.hurry()
}

func (p *probe) hurry() {
	if p == nil {
		return
	}
	p.conn.mu.Lock()
	defer p.conn.mu.Unlock()
	if p.idle && p.timer != nil && !p.conn.dead {
		p.idle = false
		p.timer.Reset(probeEvery)
	}
}

// close gives the probe up. What waits for the link's end, or for a new probe, does
// not wait for it: a device may need seconds for a queue pair that has failed.
func (p *probe) close() {
	if p == nil {
		return
	}
	p.once.Do(func() {
		p.conn.mu.Lock()
		p.conn.dead = true
		if p.timer != nil {
			p.timer.Stop()
		}
		p.conn.mu.Unlock()
		p.conn.shut()
	})
}

func (p *probe) arrived(uint32) { p.conn.fail(errProtocol, false) }

func (p *probe) finished(uint64) {
	p.waiting = false
	if !p.first {
		p.first = true
		close(p.reached)
	}
}

func (p *probe) flush() {}

func (p *probe) complete() bool { return false }

func (p *probe) broke(err error, _ bool) {
	close(p.broken)
	p.link.lost(p, err)
}
