package soft

import (
	"fmt"

	"github.com/novastream/novastream/rdma"
)

func (q *qp) sendAt(pos uint64) *sendEntry   { return &q.sq[pos%uint64(len(q.sq))] }
func (q *qp) recvAt(pos uint64) *rdma.RecvWR { return &q.rq[pos%uint64(len(q.rq))] }

// inlineAt is where the bytes of an inline request at pos are kept.
func (q *qp) inlineAt(pos uint64, n uint32) []byte {
	i := int(pos%uint64(len(q.sq))) * q.maxInline
	return q.inline[i : i+int(n)]
}

// PostSend queues requests.
func (q *qp) PostSend(wrs []rdma.SendWR) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.postable(); err != nil {
		return 0, err
	}
	if q.state < rdma.RTS {
		return 0, fmt.Errorf("%w: PostSend in %v", rdma.ErrState, q.state)
	}
	for n = range wrs {
		if err = q.enqueue(&wrs[n]); err != nil {
			break
		}
	}
	if err == nil {
		n = len(wrs)
	}
	if q.flushed {
		q.flush()
	} else if n > 0 {
		q.rouse()
	}
	return n, err
}

// postable tells why nothing can be posted. The lock is held.
func (q *qp) postable() error {
	if q.closed {
		return q.closedError()
	}
	q.dev.mu.Lock()
	defer q.dev.mu.Unlock()
	if q.dev.gone {
		return fmt.Errorf("%w: %s", rdma.ErrDeviceGone, q.dev.info.Name)
	}
	return nil
}

// enqueue checks one request and puts it behind the others. The lock is held.
func (q *qp) enqueue(wr *rdma.SendWR) error {
	switch {
	case wr.Op < rdma.OpWrite || wr.Op > rdma.OpRead:
		return fmt.Errorf("%w: %v cannot be posted", rdma.ErrRequest, wr.Op)
	case wr.Flags&^(rdma.Signaled|rdma.Inline|rdma.Fence) != 0:
		return fmt.Errorf("%w: flags %#x", rdma.ErrRequest, wr.Flags)
	case int64(wr.Local.Length) > maxMessage:
		return fmt.Errorf("%w: %d bytes: at most %d", rdma.ErrRequest, wr.Local.Length, maxMessage)
	case q.tail-q.sendFree.Load() == uint64(len(q.sq)):
		return fmt.Errorf("%w: %d sends without a completion that was polled", rdma.ErrQueueFull, len(q.sq))
	}
	if wr.Flags&rdma.Inline != 0 {
		if wr.Op == rdma.OpRead || int64(wr.Local.Length) > int64(q.maxInline) {
			return fmt.Errorf("%w: inline %v of %d bytes: WRITE or SEND of at most %d", rdma.ErrRequest, wr.Op, wr.Local.Length, q.maxInline)
		}
		if !q.copyLocal(q.inlineAt(q.tail, wr.Local.Length), wr.Local) {
			return fmt.Errorf("%w: inline %v from memory that is not registered", rdma.ErrRequest, wr.Op)
		}
	}
	*q.sendAt(q.tail) = sendEntry{wr: *wr}
	q.tail++
	return nil
}

// copyLocal reads local registered memory; false when it is none.
func (q *qp) copyLocal(dst []byte, s rdma.Segment) bool {
	if s.Length == 0 {
		return true
	}
	r, mem := q.dev.keys.find(s.LKey, q.dom, 0, s.Addr, s.Length)
	if mem == nil || !r.enter(nil) {
		return false
	}
	copyOut(dst, mem)
	r.exit(nil)
	return true
}

// PostRecv queues receives.
func (q *qp) PostRecv(wrs []rdma.RecvWR) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.postable(); err != nil {
		return 0, err
	}
	n := min(len(wrs), len(q.rq)-int(q.rtail-q.recvFree.Load()))
	for i := range n {
		*q.recvAt(q.rtail) = wrs[i]
		q.rtail++
	}
	if q.flushed {
		q.flush()
	}
	if n < len(wrs) {
		return n, fmt.Errorf("%w: %d receives without a completion that was polled", rdma.ErrQueueFull, len(q.rq))
	}
	return n, nil
}

// completeSend tells how the request at pos ended, if that is to be told. The
// lock is held.
func (q *qp) completeSend(pos uint64, s rdma.Status) {
	wr := &q.sendAt(pos).wr
	if s == rdma.Success && wr.Flags&rdma.Signaled == 0 {
		return
	}
	c := rdma.Completion{ID: wr.ID, QP: q.num, Op: wr.Op, Status: s}
	if s != rdma.Success {
		c.Op = 0
	}
	if !q.scq.push(entry{c: c, q: q, send: pos + 1}) {
		q.fail(rdma.Flushed)
	}
}

// complete moves acked on to pos: all before it are done. The lock is held.
func (q *qp) complete(pos uint64) {
	if pos <= q.acked {
		return
	}
	for ; q.acked < pos; q.acked++ {
		if q.sendAt(q.acked).wr.Op == rdma.OpRead && q.acked < q.sent {
			q.reads--
		}
		q.completeSend(q.acked, rdma.Success)
	}
	q.sent = max(q.sent, q.acked)
	q.retries, q.rnrRetries = 0, 0
	if !q.deadline.IsZero() && q.lost < q.acked {
		q.deadline = time0
	}
}
