package soft

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/novastream/novastream/rdma"
)

// domain is a protection domain, and knows what was made from it.
type domain struct {
	dev *Device

	mu      sync.Mutex
	closed  bool
	regions map[*region]bool
	cqs     map[*cq]bool
	qps     map[*qp]bool
}

// NewDomain makes a protection domain.
func (d *Device) NewDomain() (rdma.Domain, error) {
	m := &domain{dev: d, regions: map[*region]bool{}, cqs: map[*cq]bool{}, qps: map[*qp]bool{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(); err != nil {
		return nil, err
	}
	d.domains[m] = true
	return m, nil
}

// usable tells why nothing can be made from the domain. The lock is held.
func (m *domain) usable() error {
	if m.closed {
		return fmt.Errorf("domain: %w", rdma.ErrClosed)
	}
	m.dev.mu.Lock()
	defer m.dev.mu.Unlock()
	return m.dev.usable()
}

func (m *domain) forgetRegion(r *region) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.regions, r)
}

func (m *domain) forgetQP(q *qp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.qps, q)
}

// closeUsers closes the queue pairs that complete to c, and forgets c.
func (m *domain) closeUsers(c *cq) {
	m.mu.Lock()
	delete(m.cqs, c)
	var users []*qp
	for q := range m.qps {
		if q.scq == c || q.rcq == c {
			users = append(users, q)
		}
	}
	m.mu.Unlock()
	for _, q := range users {
		q.Close()
	}
}

// Close closes queue pairs first, so that nothing is under way in the regions.
func (m *domain) Close() error {
	m.mu.Lock()
	m.closed = true
	qps := slices.Collect(maps.Keys(m.qps))
	cqs := slices.Collect(maps.Keys(m.cqs))
	regions := slices.Collect(maps.Keys(m.regions))
	m.mu.Unlock()
	for _, q := range qps {
		q.Close()
	}
	for _, c := range cqs {
		c.Close()
	}
	for _, r := range regions {
		r.Close()
	}
	m.dev.mu.Lock()
	delete(m.dev.domains, m)
	m.dev.mu.Unlock()
	return nil
}
