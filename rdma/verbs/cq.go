//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// earlyMax is how many completions Wait takes when it looks whether there are any:
// verbs cannot look without taking.
const earlyMax = 16

// cq is a completion queue.
type cq struct {
	dom  *domain
	q    ibv.CQ
	wait *waiter
	lost atomic.Bool // it has overflowed

	mu     sync.Mutex // held for whatever touches q but the taking of its events
	closed bool
	qps    map[uint32]*qp // that use it
	store  [earlyMax]rdma.Completion
	early  []rdma.Completion // in store: taken by Wait, not yet by Poll
}

func (q *cq) Poll(dst []rdma.Completion) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, fmt.Errorf("%w: completion queue", rdma.ErrClosed)
	}
	n := copy(dst, q.early)
	q.early = q.early[n:]
	if n < len(dst) {
		k, err := q.q.Poll(dst[n:])
		if err != nil && n == 0 {
			return 0, fmt.Errorf("verbs: poll: %w", err)
		}
		n += k
	}
	if n == 0 && len(dst) > 0 && q.lost.Load() {
		return 0, fmt.Errorf("%w: make it deeper, or poll more often", rdma.ErrOverflow)
	}
	var p *qp
	for i := range dst[:n] {
		c := &dst[i]
		if p == nil || p.num != c.QP {
			p = q.qps[c.QP]
		}
		if p != nil {
			p.polled(c)
		}
	}
	return n, nil
}

func (q *cq) Wait(ctx context.Context) error {
	ready, err := q.arm()
	if ready || err != nil {
		return err
	}
	return q.wait.wait(ctx, func() error {
		if q.lost.Load() {
			return nil
		}
		return q.q.Event()
	})
}

// arm asks for an event, and then looks whether a completion came before it did.
func (q *cq) arm() (ready bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, fmt.Errorf("%w: completion queue", rdma.ErrClosed)
	}
	if len(q.early) > 0 || q.lost.Load() {
		return true, nil
	}
	if err := q.q.Arm(); err != nil {
		return false, fmt.Errorf("verbs: arm a completion queue: %w", err)
	}
	n, err := q.q.Poll(q.store[:])
	if err != nil {
		return false, fmt.Errorf("verbs: poll: %w", err)
	}
	q.early = q.store[:n]
	return n > 0, nil
}

// overflown is told by the device. Some devices, such as rdma_rxe, let the queue
// pairs go on: they are lost all the same.
func (q *cq) overflown() {
	q.lost.Store(true)
	for _, p := range q.users() {
		_ = p.Abort()
	}
	q.wait.kick()
}

// users are the queue pairs that use the queue.
func (q *cq) users() []*qp {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Values(q.qps))
}

func (q *cq) Close() error {
	if !closing(q.dom, q.dom.cqs, q) {
		return nil
	}
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	var errs []error
	for _, p := range q.users() {
		errs = append(errs, p.Close())
	}
	errs = append(errs, q.wait.close())
	q.dom.dev.mu.Lock()
	delete(q.dom.dev.queues, q.q.ID())
	q.dom.dev.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.q.Close(); err != nil {
		errs = append(errs, fmt.Errorf("verbs: destroy a completion queue: %w", err))
	}
	return errors.Join(errs...)
}
