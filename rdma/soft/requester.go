package soft

import (
	"errors"
	"time"

	"github.com/novastream/novastream/rdma"
)

var time0 time.Time

// A requester transmits what is posted, in order and without waiting for
// acknowledgements, and goes back to the first request that is not acknowledged
// when something was lost. Over a connection that stands nothing gets lost but by
// a fault, so the timer runs only while there is no connection, or after a fault:
// a peer that is only slow, or stopped, is none of its business.

// link carries requests to the peer's responder. The replies come to onReply. run
// alone calls send and close.
type link interface {
	// send transmits requests; how many it did, when local memory went away or they
	// need not all be sent. An error means that the link is of no use any more.
	send(batch []message) (int, error)
	// interrupt makes send, and all that the link does, end soon.
	interrupt()
	// close returns when the link does nothing any more.
	close()
}

// message is a request on its way: its bytes are in data, or in local memory.
type message struct {
	request
	data  []byte // inline; the batch's own copy
	local rdma.Segment
}

// Bounds of what is transmitted before run looks around again.
const (
	batchRequests = 256
	batchBytes    = 4 << 20
)

// Errors of links, which nobody outside sees.
var (
	errProtocol    = errors.New("soft: protocol violated")
	errUnreachable = errors.New("soft: peer unreachable")
	errEnded       = errors.New("soft: queue pair in error")
)

// run executes the send queue until the queue pair is in Error, and flushes it.
func (q *qp) run() {
	defer close(q.stopped)
	r := runner{qp: q}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, ok := r.step()
		if !ok {
			break
		}
		if wait == 0 {
			continue
		}
		var expired <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			expired = timer.C
		}
		select {
		case <-q.kick:
		case <-expired:
		}
	}
	if r.current != nil {
		r.current.close()
	}
	q.mu.Lock()
	q.link = nil
	q.mu.Unlock()
	q.serveMu.Lock()
	q.mu.Lock()
	q.flush()
	q.mu.Unlock()
	q.serveMu.Unlock()
}

// runner is what run alone knows.
type runner struct {
	*qp
	current link // to be closed
	batch   []message
	data    []byte
}

// step does what is to be done next. It returns how long to wait, negative: until
// roused; false when the queue pair is in Error.
func (r *runner) step() (time.Duration, bool) {
	q := r.qp
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == rdma.Error {
		return 0, false
	}
	if q.state != rdma.RTS || q.acked == q.tail || q.dev.faults.stalled.Load() {
		return -1, true
	}
	now := time.Now()
	if !q.deadline.IsZero() && !now.Before(q.deadline) {
		if q.retries++; q.retries > q.opt.RetryCount {
			q.fail(rdma.RetryExceeded)
			return 0, false
		}
		q.rewind(q.acked)
	}
	if wait := q.notBefore.Sub(now); wait > 0 {
		return wait, true
	}
	if q.link == nil {
		if wait := q.deadline.Sub(now); wait > 0 {
			return wait, true
		}
		return r.connect(now), true
	}
	if wait := r.gather(now); len(r.batch) == 0 {
		return wait, true
	}
	l, first := q.link, r.batch[0].psn
	q.mu.Unlock()
	n, err := l.send(r.batch)
	q.mu.Lock()
	if err != nil {
		q.down(l)
	} else if n < len(r.batch) && q.sent > first+uint64(n) {
		q.rewind(first + uint64(n))
	}
	return 0, true
}

// rewind has everything from pos on that is not done transmitted again. The timer
// runs on unless that is all that is not done: what is before pos may be lost. The
// lock is held.
func (q *qp) rewind(pos uint64) {
	if pos <= q.acked {
		pos, q.deadline = q.acked, time0
	}
	q.sent, q.reads = pos, 0
	for p := q.acked; p < pos; p++ {
		if q.sendAt(p).wr.Op == rdma.OpRead {
			q.reads++
		}
	}
}

// lose has what is not done transmitted again when the timeout has passed, unless
// pos and all that was lost before are done by then: a request may be lost the
// second time only, and acknowledged while one behind it stays lost. The lock is
// held.
func (q *qp) lose(pos uint64, since time.Time) {
	if q.deadline.IsZero() {
		q.deadline, q.lost = since.Add(q.opt.Timeout), pos
	}
	q.lost = max(q.lost, pos)
}

// connect makes a link. The lock is held, but not while it tries.
func (r *runner) connect(now time.Time) time.Duration {
	q := r.qp
	q.mu.Unlock()
	if r.current != nil {
		r.current.close()
		r.current = nil
	}
	l, answer, err := q.open()
	r.current = l
	q.mu.Lock()
	if err != nil {
		q.lose(q.acked, now)
		return 0
	}
	if q.state == rdma.Error {
		l.interrupt()
		return 0
	}
	q.rewind(q.acked)
	q.link, q.linkSince = l, now
	if err := q.acknowledge(answer); err != nil {
		q.fail(rdma.BadResponse)
	}
	q.linkAcked = q.acked
	if !q.dev.reachable() { // since when it was made
		q.down(l)
	}
	return 0
}

// acknowledge takes the peer's word on a new link of what it has: like a reply, but
// answers of READs may be missing.
func (q *qp) acknowledge(answer reply) error {
	if answer.psn < q.acked || answer.psn > q.high {
		return errProtocol
	}
	for q.acked < answer.psn && q.sendAt(q.acked).wr.Op != rdma.OpRead {
		q.complete(q.acked + 1)
	}
	switch {
	case answer.kind != nakFatal:
	case q.acked == answer.psn:
		q.fail(answer.status)
	default:
		q.fail(rdma.RetryExceeded) // there is nobody any more who would answer the READ
	}
	return nil
}

// down is told that a link is of no use any more. The lock is held. A link that
// was of no use at all is lost time, like a request without an answer.
func (q *qp) down(l link) {
	if q.link != l {
		return
	}
	l.interrupt()
	q.link = nil
	useless := q.acked == q.linkAcked
	if deadline := q.linkSince.Add(q.opt.Timeout); useless {
		q.sent, q.reads = q.acked, 0
		q.deadline, q.lost = deadline, q.acked
	} else {
		q.rewind(q.acked)
	}
	q.rouse()
}

// gather takes what can be transmitted now into the batch. The lock is held. With
// an empty batch it returns how long to wait.
func (r *runner) gather(now time.Time) time.Duration {
	q := r.qp
	r.batch, r.data = r.batch[:0], r.data[:0]
	faulty := q.dev.faults.active.Load()
	for bytes := 0; q.sent < q.tail && len(r.batch) < batchRequests && bytes < batchBytes; {
		pos := q.sent
		e := q.sendAt(pos)
		if e.wr.Flags&rdma.Fence != 0 && q.reads > 0 {
			break
		}
		if !q.localValid(&e.wr) {
			// Those before it come first.
			if q.acked == pos {
				q.fail(rdma.LocalProtection)
			}
			break
		}
		fate := intact
		if faulty {
			if len(r.batch) > 0 {
				break
			}
			var delay time.Duration
			if delay, fate = q.draw(pos); delay > 0 {
				q.notBefore = now.Add(delay)
				return delay
			}
		}
		q.sent++
		q.high = max(q.high, q.sent)
		if e.wr.Op == rdma.OpRead {
			q.reads++
		}
		q.disturbed = q.disturbed || fate != intact
		if fate == lostRequest {
			q.lose(pos, now)
			continue
		}
		e.deaf = fate == lostReply
		r.add(pos, &e.wr)
		bytes += int(e.wr.Local.Length)
	}
	switch {
	case q.state == rdma.Error:
		return 0
	case !q.deadline.IsZero():
		return max(q.deadline.Sub(now), 1)
	}
	return -1
}

// add appends the request at pos to the batch.
func (r *runner) add(pos uint64, wr *rdma.SendWR) {
	m := message{
		request: request{op: wr.Op, length: wr.Local.Length, remote: wr.Remote, key: wr.RKey, imm: wr.Imm, psn: pos},
		local:   wr.Local,
	}
	if wr.Flags&rdma.Inline != 0 {
		// Appending may move data; what was appended before stays as it is.
		i := len(r.data)
		r.data = append(r.data, r.inlineAt(pos, wr.Local.Length)...)
		m.data = r.data[i:len(r.data):len(r.data)]
		m.local = rdma.Segment{}
	}
	r.batch = append(r.batch, m)
}

// localValid tells whether the request's local memory is registered.
func (q *qp) localValid(wr *rdma.SendWR) bool {
	if wr.Local.Length == 0 || wr.Flags&rdma.Inline != 0 {
		return true
	}
	_, mem := q.dev.keys.find(wr.Local.LKey, q.dom, 0, wr.Local.Addr, wr.Local.Length)
	return mem != nil
}
