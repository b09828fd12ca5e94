//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"sync"

	"github.com/novastream/novastream/rdma"
)

// newsKept is how many events are kept for a user who does not ask for them.
const newsKept = 1024

// news hands events from the one goroutine that reads them to any that ask.
type news struct {
	mu     sync.Mutex
	queue  []rdma.Event
	more   chan struct{} // holds one token while the queue is not empty
	closed chan struct{}
	once   sync.Once
}

func newNews() *news {
	return &news{more: make(chan struct{}, 1), closed: make(chan struct{})}
}

// add appends an event. When nobody takes them the newest are dropped, except
// the one after which nothing matters.
func (n *news) add(e rdma.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) >= newsKept && e.Kind != rdma.EventDeviceGone {
		return
	}
	n.queue = append(n.queue, e)
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *news) next(ctx context.Context) (rdma.Event, error) {
	select {
	case <-n.closed:
		return rdma.Event{}, rdma.ErrClosed
	default:
	}
	select {
	case <-n.more:
	case <-n.closed:
		return rdma.Event{}, rdma.ErrClosed
	case <-ctx.Done():
		return rdma.Event{}, context.Cause(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.queue[0]
	if n.queue = n.queue[1:]; len(n.queue) > 0 {
		n.more <- struct{}{}
	}
	return e, nil
}

func (n *news) close() { n.once.Do(func() { close(n.closed) }) }
