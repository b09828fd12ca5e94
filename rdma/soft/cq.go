package soft

import (
	"context"
	"fmt"
	"sync"

	"github.com/novastream/novastream/rdma"
)

// cq is a completion queue: a ring of entries under a lock. Pushing takes no other
// lock, and wakes through a channel with room for one token, which is put there
// only for a consumer that has said that it waits; it says so under the lock, so
// no wake is lost.
type cq struct {
	dom  *domain
	wake chan struct{}

	mu       sync.Mutex
	ring     []entry
	head, n  int
	waiting  bool
	overflow bool
	closed   bool
}

// entry is a completion, and the places of its queue pair's queues that its
// polling frees.
type entry struct {
	c    rdma.Completion
	q    *qp
	send uint64 // the send queue is free up to here
	recv bool   // a place of the receive queue is free
}

func (m *domain) NewCQ(depth int) (rdma.CQ, error) {
	if limit := m.dev.limits().MaxCQ; depth <= 0 || depth > limit {
		return nil, fmt.Errorf("%w: a completion queue of %d: from 1 to %d on %s", rdma.ErrLimit, depth, limit, m.dev.name())
	}
	c := &cq{dom: m, ring: make([]entry, depth), wake: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(); err != nil {
		return nil, err
	}
	m.cqs[c] = true
	return c, nil
}

// push adds an entry; false when the queue has overflowed, now or before.
func (c *cq) push(e entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return true
	}
	if !c.overflow && c.n == len(c.ring) {
		c.overflow = true
		c.dom.dev.raise(rdma.Event{Kind: rdma.EventCQError})
	}
	if c.overflow {
		c.rouse()
		return false
	}
	i := c.head + c.n
	if i >= len(c.ring) {
		i -= len(c.ring)
	}
	c.ring[i] = e
	c.n++
	c.rouse()
	return true
}

// rouse wakes the consumer if it waits. The lock is held.
func (c *cq) rouse() {
	if c.waiting {
		c.waiting = false
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

func (c *cq) Poll(dst []rdma.Completion) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(dst), c.n)
	for i := range n {
		e := &c.ring[c.head]
		dst[i] = e.c
		if e.recv {
			e.q.recvFree.Add(1)
		} else {
			e.q.sendFree.Store(e.send)
		}
		e.q = nil
		if c.head++; c.head == len(c.ring) {
			c.head = 0
		}
	}
	c.n -= n
	switch {
	case n > 0 || len(dst) == 0:
		return n, nil
	case c.closed:
		return 0, fmt.Errorf("completion queue: %w", rdma.ErrClosed)
	case c.overflow:
		return 0, fmt.Errorf("%w: it has room for %d", rdma.ErrOverflow, len(c.ring))
	}
	return 0, nil
}

func (c *cq) Wait(ctx context.Context) error {
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return fmt.Errorf("completion queue: %w", rdma.ErrClosed)
	case c.n > 0 || c.overflow:
		c.mu.Unlock()
		return nil
	}
	c.waiting = true
	c.mu.Unlock()
	select {
	case <-c.wake:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			return fmt.Errorf("completion queue: %w", rdma.ErrClosed)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close drops what was not polled.
func (c *cq) Close() error {
	c.dom.closeUsers(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.n = true, 0
	clear(c.ring)
	c.rouse()
	return nil
}
