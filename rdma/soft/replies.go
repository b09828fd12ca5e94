package soft

import (
	"time"

	"github.com/novastream/novastream/rdma"
)

// payload is the bytes that follow a header. They are taken whole, by one of the
// two.
type payload interface {
	// read moves them to registered memory, between enter and exit.
	read(dst []byte) error
	// discard drops them.
	discard(n int) error
}

// onReply takes a reply that came over l. An error means that l is of no use any
// more.
func (q *qp) onReply(l link, rp reply, p payload) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.link != l || q.state != rdma.RTS {
		return errEnded
	}
	if err := q.take(l, rp, p); err != nil {
		q.fail(rdma.BadResponse)
		return err
	}
	if q.acked != q.tail {
		q.rouse()
	}
	return nil
}

// take executes a reply. It gives the lock up while the bytes of a READ come.
func (q *qp) take(l link, rp reply, p payload) error {
	if rp.psn >= q.high && (rp.kind != nakSeq || rp.psn > q.high) {
		return errProtocol
	}
	if rp.psn < q.acked { // of a request that was sent twice
		if rp.kind == readDone {
			return q.unlocked(func() error { return p.discard(int(rp.value)) })
		}
		return nil
	}
	upto := rp.psn // all before it are done
	if rp.kind == ack {
		upto++
	}
	for pos := q.acked; pos < upto; pos++ {
		if e := q.sendAt(pos); e.wr.Op == rdma.OpRead {
			if pos < q.sent && !e.deaf && !q.disturbed {
				return errProtocol // its bytes should have come before
			}
			return q.missed(pos, rp, p)
		}
	}
	if (rp.kind == ack || rp.kind == readDone) && q.sendAt(rp.psn).deaf {
		return q.missed(rp.psn, rp, p)
	}
	q.complete(upto)
	switch rp.kind {
	case readDone:
		return q.takeRead(l, rp, p)
	case nakSeq:
		if q.retries++; q.retries > q.opt.RetryCount {
			q.fail(rdma.RetryExceeded)
			return nil
		}
		q.rewind(rp.psn)
	case nakRNR:
		if q.rnrRetries++; q.rnrRetries > q.opt.RNRRetry {
			q.fail(rdma.RNRRetryExceeded)
			return nil
		}
		q.rewind(rp.psn)
		q.notBefore = time.Now().Add(time.Duration(rp.value) * time.Microsecond)
	case nakFatal:
		q.fail(rp.status)
	}
	return nil
}

// missed takes a reply that comes without the one to the request at pos, which was
// lost with a connection or by a fault. It tells of what is before pos only; from
// there on all is to be sent again.
func (q *qp) missed(pos uint64, rp reply, p payload) error {
	q.complete(pos)
	switch {
	case rp.kind == nakFatal:
		q.fail(rdma.RetryExceeded) // there is nobody any more who would answer
	case pos < q.sent:
		q.lose(pos, time.Now())
	}
	if rp.kind == readDone {
		q.sendAt(rp.psn).deaf = true
		return q.unlocked(func() error { return p.discard(int(rp.value)) })
	}
	return nil
}

func (q *qp) unlocked(f func() error) error {
	q.mu.Unlock()
	defer q.mu.Lock()
	return f()
}

// takeRead moves the bytes of the READ at rp.psn, which is the first that is not
// done, to where they belong.
func (q *qp) takeRead(l link, rp reply, p payload) error {
	wr := q.sendAt(rp.psn).wr
	if wr.Op != rdma.OpRead || rp.psn >= q.tail || rp.value != wr.Local.Length {
		return errProtocol
	}
	if wr.Local.Length > 0 {
		r, mem := q.dev.keys.find(wr.Local.LKey, q.dom, 0, wr.Local.Addr, wr.Local.Length)
		if mem == nil || !r.enter(l) {
			q.fail(rdma.LocalProtection)
			return nil
		}
		err := q.unlocked(func() error {
			defer r.exit(l)
			return p.read(mem)
		})
		if err != nil {
			q.down(l)
			return nil
		}
	}
	if q.state == rdma.RTS {
		q.complete(rp.psn + 1)
	}
	return nil
}
