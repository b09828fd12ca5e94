//go:build verbs && cgo && linux

package verbs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// domain is a protection domain, and knows what was made from it.
//
// Locks are taken in the order domain, completion queue, queue pair, device.
type domain struct {
	dev *device
	pd  ibv.PD

	mu      sync.Mutex
	closed  bool
	qps     map[*qp]bool
	cqs     map[*cq]bool
	regions map[*region]bool
}

// open says ErrClosed when the domain is closed. The caller holds mu.
func (m *domain) open() error {
	if m.closed {
		return fmt.Errorf("%w: a domain of %s", rdma.ErrClosed, m.dev.port.name)
	}
	return nil
}

func (m *domain) NewCQ(depth int) (rdma.CQ, error) {
	limit := m.dev.port.attr.MaxCQE
	if depth <= 0 || depth > limit {
		return nil, fmt.Errorf("%w: a completion queue of %s has room for 1 to %d, not %d: use several", rdma.ErrLimit, m.dev.port.name, limit, depth)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return nil, err
	}
	c, err := m.dev.port.ctx.CreateCQ(depth)
	if err != nil {
		return nil, refused(fmt.Sprintf("a completion queue for %d", depth), err)
	}
	q := &cq{dom: m, q: c, qps: map[uint32]*qp{}}
	if q.wait, err = newWaiter(c.FD(), "verbs: completions of "+m.dev.port.name); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	m.cqs[q] = true
	m.dev.mu.Lock()
	m.dev.queues[c.ID()] = q
	m.dev.mu.Unlock()
	return q, nil
}

func (m *domain) NewQP(opt rdma.QPOptions) (rdma.QP, error) {
	send, _ := opt.SendCQ.(*cq)
	recv, _ := opt.RecvCQ.(*cq)
	limits := m.dev.port.attr
	switch {
	case send == nil || recv == nil || send.dom != m || recv.dom != m:
		return nil, fmt.Errorf("%w: SendCQ and RecvCQ must be completion queues of the same domain", rdma.ErrOption)
	case opt.MaxSend <= 0 || opt.MaxRecv <= 0 || opt.MaxSend > limits.MaxQPWR || opt.MaxRecv > limits.MaxQPWR:
		return nil, fmt.Errorf("%w: MaxSend %d and MaxRecv %d: a queue of %s has room for 1 to %d", rdma.ErrLimit, opt.MaxSend, opt.MaxRecv, m.dev.port.name, limits.MaxQPWR)
	case opt.MaxInline < 0 || opt.MaxInline > m.dev.port.inline:
		return nil, fmt.Errorf("%w: MaxInline %d: %s takes %d bytes at most", rdma.ErrLimit, opt.MaxInline, m.dev.port.name, m.dev.port.inline)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return nil, err
	}
	if !m.cqs[send] || !m.cqs[recv] {
		return nil, fmt.Errorf("%w: completion queue", rdma.ErrClosed)
	}
	q := &qp{dom: m, opt: opt, sendCQ: send, recvCQ: recv, sends: newPlaces(opt.MaxSend), recvs: newPlaces(opt.MaxRecv)}
	if err := q.create(); err != nil {
		return nil, err
	}
	m.qps[q] = true
	return q, nil
}

// closing takes what was made from the domain out of it, so that it is closed
// once, and tells whether it was there.
func closing[T comparable](m *domain, of map[T]bool, v T) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := of[v]
	delete(of, v)
	return was
}

func (m *domain) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	qps, cqs, regions := slices.Collect(maps.Keys(m.qps)), slices.Collect(maps.Keys(m.cqs)), slices.Collect(maps.Keys(m.regions))
	m.mu.Unlock()
	var errs []error
	for _, q := range qps {
		errs = append(errs, q.Close())
	}
	for _, q := range cqs {
		errs = append(errs, q.Close())
	}
	for _, r := range regions {
		errs = append(errs, r.Close())
	}
	errs = append(errs, m.pd.Close())
	m.dev.mu.Lock()
	delete(m.dev.domains, m)
	m.dev.mu.Unlock()
	return errors.Join(errs...)
}
