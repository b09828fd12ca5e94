package rdma

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/rdma"
)

// link is what the sessions with one peer share: a protection domain, so that no
// other peer's queue pair can use a key of theirs, completion queues, and a probe
// in each direction.
//
// It is made with the first session or probe, and closed when the connection to
// the peer has ended and the last session is released.
type link struct {
	lane *Lane
	peer *control.Peer
	dom  rdma.Domain

	mu     sync.Mutex
	shards []*shard
	users  int  // conns
	over   bool // the connection to the peer has ended
	closed bool
	out    *probe              // made by this side
	in     *probe              // made by the other
	ends   map[*session]uint64 // and which they are of all that there were
	count  atomic.Uint64       // sessions that there were

	failing  atomic.Uint64 // the probe of this side that has failed last
	reaching sync.Mutex    // one reach at a time
	refused  error         // what the last one came to
	again    time.Time     // when the next may be tried
}

// link finds the peer's, or makes it.
func (l *Lane) link(peer *control.Peer) (*link, error) {
	dev, err := l.device()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	k := l.links[peer]
	l.mu.Unlock()
	if k != nil {
		return k, nil
	}
	dom, err := dev.NewDomain()
	if err != nil {
		return nil, err
	}
	k = &link{lane: l, peer: peer, dom: dom, ends: map[*session]uint64{}}
	l.mu.Lock()
	if other := l.links[peer]; other != nil || l.closing {
		l.mu.Unlock()
		_ = dom.Close()
		if other == nil {
			return nil, errClosing
		}
		return other, nil
	}
	l.links[peer] = k
	l.users++
	l.mu.Unlock()
	peer.OnClose(func(error) { k.end() })
	return k, nil
}

var errClosing = errors.New("this node's streaming is being closed")

// end closes the link as soon as its last session is released.
func (l *link) end() {
	l.lane.mu.Lock()
	if l.lane.links[l.peer] == l {
		delete(l.lane.links, l.peer)
	}
	l.lane.mu.Unlock()
	l.mu.Lock()
	first := !l.over
	l.over = true
	out, in := l.out, l.in
	l.out, l.in = nil, nil
	l.mu.Unlock()
	if !first {
		return
	}
	out.close()
	in.close()
	l.settle()
}

// settle closes the domain if nobody uses it any more.
func (l *link) settle() {
	l.mu.Lock()
	idle := l.over && l.users == 0 && !l.closed
	l.closed = l.closed || idle
	shards := l.shards
	l.mu.Unlock()
	if !idle {
		return
	}
	for _, s := range shards {
		s.close()
	}
	_ = l.dom.Close()
	l.lane.left()
}

// shard finds a place for a conn.
func (l *link) shard() (*shard, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, control.ErrConnLost
	}
	for _, s := range l.shards {
		if s.free > 0 {
			s.free--
			l.users++
			return s, nil
		}
	}
	s, err := l.newShard()
	if err != nil {
		return nil, err
	}
	s.free--
	l.users++
	l.shards = append(l.shards, s)
	return s, nil
}

// put gives a conn's place back.
func (s *shard) put() {
	l := s.link
	l.mu.Lock()
	s.free++
	l.users--
	l.mu.Unlock()
	l.settle()
}

// add and remove keep the list of sessions, which the probes are for.
func (l *link) add(s *session) {
	l.mu.Lock()
	l.ends[s] = l.count.Add(1)
	first := len(l.ends) == 1
	out, in := l.out, l.in
	l.mu.Unlock()
	if first {
		out.start()
		in.start()
	}
}

func (l *link) remove(s *session) {
	l.mu.Lock()
	delete(l.ends, s)
	l.mu.Unlock()
}

// sessions counts them.
func (l *link) sessions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ends)
}

// take takes the probe with this name off, nil when there is none.
func (l *link) take(id uint64, out bool) (p *probe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := &l.in
	if out {
		at = &l.out
	}
	if p = *at; p == nil || p.id != id {
		return nil
	}
	*at = nil
	return p
}

// lost takes note that a probe of this side has failed. The peer is asked before
// anything is concluded: when it has given its end of the probe up, that explains
// the failure, and the path may be as good as before; a new probe tells. Otherwise
// nothing comes through, and the sessions that there were when the probe set out
// fail; each tells the other side.
func (l *link) lost(p *probe, err error) {
	if l.take(p.id, p.out) == nil { // replaced
		p.close()
		return
	}
	l.failing.Store(p.id)
	ctx, cancel := context.WithTimeout(context.Background(), tellTimeout)
	defer cancel()
	b := newWriter().uint(p.id).uint(b2u(!p.out))
	msg, e := l.peer.Call(ctx, "rdma_lost", control.Message{Payload: b})
	p.close()
	if e != nil || !bytes.Equal(msg.Payload, answered) {
		l.breakUpTo(p.until, err, e != nil) // who does not answer cannot be told either
	}
	l.renew()
}

// peerLost is the other side of lost, and answers answered when the probe had been given up
// here before, and for no failure of its own.
func (l *link) peerLost(id uint64, out bool) []byte {
	p := l.take(id, out)
	if p == nil {
		if l.failing.Load() == id {
			return nil
		}
		return answered
	}
	go func() {
		p.close()
		l.renew()
	}()
	return nil
}

// answered is the answer yes.
var answered = []byte{version}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// renew makes a probe for the sessions that are left.
func (l *link) renew() {
	if l.sessions() == 0 {
		return
	}
	now := l.count.Load()
	if err := l.reach(); err != nil {
		l.breakUpTo(now, err, false)
	}
}

// breakUpTo fails the first n sessions. Told says that the peer is not to be told.
func (l *link) breakUpTo(n uint64, err error, told bool) {
	var broken []*session
	l.mu.Lock()
	for s, i := range l.ends {
		if i <= n {
			broken = append(broken, s)
		}
	}
	l.mu.Unlock()
	for _, s := range broken {
		s.breaks(fmt.Errorf("link to worker %v: %w", l.peer.WorkerID(), err), told)
	}
}

// Patience with the peer, whose device may not be reachable although its
// node is.
const (
	helloTimeout   = 2 * time.Second
	connectTimeout = 5 * time.Second
)

// helloAgain is for how long a peer that was not reached is not tried again.
var helloAgain = time.Second

// reach sees to it that the two devices reach each other, once: the peer makes a
// queue pair, and something is written through it.
func (l *link) reach() error {
	l.reaching.Lock()
	defer l.reaching.Unlock()
	l.mu.Lock()
	out := l.out
	l.mu.Unlock()
	if out != nil {
		return nil
	}
	if l.refused != nil && time.Now().Before(l.again) {
		return l.refused
	}
	l.refused = l.hello()
	l.again = time.Now().Add(helloAgain)
	return l.refused
}

func (l *link) hello() error {
	p, err := l.newProbe(uint64(lastProbe.Add(1)), true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	b := newWriter().bytes([]byte(l.lane.provider.Name())).uint(p.id).bytes(p.conn.qp.Address())
	msg, err := l.peer.Call(ctx, "rdma_hello", control.Message{Payload: b})
	if err != nil {
		p.close()
		return fmt.Errorf("the receiver's node: %w", err)
	}
	r := newReader(msg.Payload)
	address := r.bytes()
	if err = r.end("answer to rdma_hello"); err == nil {
		if err = p.connect(ctx, address); err == nil {
			err = p.try(ctx)
		}
	}
	l.mu.Lock()
	if err == nil && l.over {
		err = control.ErrConnLost
	}
	if err == nil {
		l.out = p
	}
	some := len(l.ends) > 0
	l.mu.Unlock()
	if err != nil {
		p.close()
		return fmt.Errorf("the receiver's device does not answer: %w", err)
	}
	if some {
		p.start()
	}
	return nil
}

// greeted is the other side of hello.
func (l *link) greeted(ctx context.Context, id uint64, address []byte) ([]byte, error) {
	p, err := l.newProbe(id, false)
	if err != nil {
		return nil, err
	}
	if err := p.connect(ctx, address); err != nil {
		p.close()
		return nil, err
	}
	l.mu.Lock()
	old := l.in
	over := l.over
	if !over {
		l.in = p
	}
	some := len(l.ends) > 0
	l.mu.Unlock()
	if over {
		p.close()
		return nil, control.ErrConnLost
	}
	old.close()
	if some {
		p.start()
	}
	return p.conn.qp.Address(), nil
}
