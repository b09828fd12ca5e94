package rdma

import (
	"errors"
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
	timer  *time.Timer         // of probing, nil while that rests

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
	if l.timer != nil {
		l.timer.Stop()
	}
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
	defer l.mu.Unlock()
	l.ends[s] = l.count.Add(1)
	if l.timer == nil && !l.over {
		l.timer = time.AfterFunc(l.lane.every, l.probing)
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
