package rdma

import (
	"context"
	"fmt"
	"sync"

	"github.com/novastream/novastream/rdma"
)

// shard is a completion queue that many sessions with one peer share, and the one
// goroutine that looks at it; that sleeps in CQ.Wait while there is nothing. No
// session has a goroutine for its completions.
//
// The queue has room for all that its queue pairs may have outstanding, failed
// ones included, twice: what a closed one has left may still lie in it.
type shard struct {
	link *link
	cq   rdma.CQ
	stop context.CancelFunc
	over chan struct{}
	free int // conns that it has room for; guarded by the link's lock

	mu    sync.RWMutex
	conns map[uint32]*conn // by serial

	looking sync.Mutex // held from a poll until what it gave is handed out: completions stay in order
	done    [64]rdma.Completion
}

// shardDepth is how many completions a shard's queue is made for.
const shardDepth = 1 << 14

const perConn = 2 * (sendDepth + recvDepth)

func (l *link) newShard() (*shard, error) {
	depth := min(shardDepth, l.lane.limits.MaxCQ)
	if depth < perConn {
		return nil, fmt.Errorf("%w: completion queues of the device have %d places, a session needs %d", rdma.ErrLimit, depth, perConn)
	}
	cq, err := l.dom.NewCQ(depth)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &shard{link: l, cq: cq, stop: stop, over: make(chan struct{}), free: depth / perConn, conns: map[uint32]*conn{}}
	go s.run(ctx)
	return s, nil
}

func (s *shard) add(c *conn) {
	c.shard = s
	s.mu.Lock()
	defer s.mu.Unlock()
	for c.serial == 0 || s.conns[c.serial] != nil {
		c.serial = lastSerial.Add(1)
	}
	s.conns[c.serial] = c
}

func (s *shard) drop(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.serial)
}

func (s *shard) find(serial uint32) *conn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conns[serial]
}

func (s *shard) all() (out []*conn) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.conns {
		out = append(out, c)
	}
	return out
}

// run hands completions to their conns until the shard is closed.
func (s *shard) run(ctx context.Context) {
	defer close(s.over)
	for {
		s.looking.Lock()
		n, err := s.take()
		s.looking.Unlock()
		if err == nil && n < len(s.done) {
			err = s.cq.Wait(ctx)
		}
		if err != nil {
			if ctx.Err() == nil {
				for _, c := range s.all() {
					c.breaks(err, false)
				}
			}
			return
		}
	}
}

// look is for who has posted much that is not known to be done, and does not wait for the
// goroutine: that may find no processor where both ends spin. No lock of a conn is held.
func (s *shard) look() {
	if s.looking.TryLock() {
		_, _ = s.take() // an error meets the goroutine too
		s.looking.Unlock()
	}
}

// take polls once and hands out what there was. The caller holds looking.
func (s *shard) take() (n int, err error) {
	n, err = s.cq.Poll(s.done[:])
	for i := 0; i < n; {
		serial := uint32(s.done[i].ID >> idSerial)
		j := i + 1
		for j < n && uint32(s.done[j].ID>>idSerial) == serial {
			j++
		}
		if c := s.find(serial); c != nil {
			c.take(s.done[i:j])
		}
		i = j
	}
	return n, err
}

// close ends the goroutine, and then the queue.
func (s *shard) close() {
	s.stop()
	<-s.over
	_ = s.cq.Close()
}
