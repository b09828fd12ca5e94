package soft

import (
	"fmt"
	"time"

	"github.com/novastream/novastream/rdma"
)

// Describe tells how far a queue pair's requester is, for tests that fail.
func Describe(p rdma.QP) string {
	q := p.(*qp)
	q.mu.Lock()
	defer q.mu.Unlock()
	timer := "off"
	if !q.deadline.IsZero() {
		timer = fmt.Sprintf("%v for %d", time.Until(q.deadline), q.lost)
	}
	return fmt.Sprintf("queue pair %d in %v: acked %d, sent %d, tail %d, high %d, linked %v, timer %s, retries %d",
		q.num, q.state, q.acked, q.sent, q.tail, q.high, q.link != nil, timer, q.retries)
}
