package rdma

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/rdma"
)

// probe is a queue pair to the peer's device that carries nothing. While there are
// sessions each side writes no bytes through one of the link's now and then: completions
// are no sign of a peer's life, but their failure tells that the path is gone, also
// to a side that has nothing to send. Each side has its own, because where the
// connection to the peer is cut too nobody can tell it.
//
// Only one write in signalEvery is signalled. What fails completes in any case, so
// an idle link costs a timer and a post every probeEvery, however many sessions it
// has, and nobody waits for what comes of it.
type probe struct {
	link *link
	id   uint64 // given by the side that made it
	out  bool   // that is this side
	conn conn

	// Guarded by conn.mu.
	covers  [sendDepth]uint64 // by write: sessions that there were when it set out
	reached chan struct{}     // closed when the first write is done
	first   bool
	broken  chan struct{} // closed when the queue pair has failed
	once    sync.Once
}

// probeEvery is how often a link with sessions is tried, and probeRetries how often a
// probe is sent again: with the defaults it fails after a quarter of a second. So a lost
// link is noticed within a second, tellTimeout included, and one that is cut for 150 ms
// is not lost.
var probeEvery = 400 * time.Millisecond

const probeRetries = 3

var lastProbe atomic.Uint32

func (l *link) newProbe(id uint64, out bool) (*probe, error) {
	p := &probe{link: l, id: id, out: out, reached: make(chan struct{}), broken: make(chan struct{})}
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
	p.send(true)
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

// send writes. A device that has so many to do still need not be asked again.
func (p *probe) send(signalled bool) {
	p.conn.mu.Lock()
	defer p.conn.mu.Unlock()
	if p.conn.room() == 0 {
		return
	}
	seq := p.conn.add(rdma.OpWrite, rdma.Segment{}, 0, 0, 0)
	p.covers[seq%sendDepth] = p.link.count.Load()
	if signalled {
		p.conn.signalLast()
	}
	p.conn.post()
}

// probing probes for as long as the link has sessions: through the probe that this
// side has made, which also speaks for the lane's offers, if there is one.
func (l *link) probing() {
	l.mu.Lock()
	if l.over || len(l.ends) == 0 {
		l.timer = nil
		l.mu.Unlock()
		return
	}
	p := l.out
	if p == nil {
		p = l.in
	}
	l.timer.Reset(l.lane.every)
	l.mu.Unlock()
	if p != nil {
		p.send(false)
	}
}

// close gives the probe up. What waits for the link's end, or for a new probe, does
// not wait for it: a device may need seconds for a queue pair that has failed.
func (p *probe) close() {
	if p == nil {
		return
	}
	p.once.Do(p.conn.shut)
}

func (p *probe) arrived(uint32) { p.conn.fail(errProtocol, false) }

func (p *probe) finished(uint64) {
	if !p.first {
		p.first = true
		close(p.reached)
	}
}

func (p *probe) flush() {}

func (p *probe) complete() bool { return false }

func (p *probe) broke(err error, _ bool) {
	close(p.broken)
	p.conn.mu.Lock()
	until := p.covers[p.conn.done%sendDepth] // the write that has failed
	p.conn.mu.Unlock()
	p.link.lost(p, until, err)
}
