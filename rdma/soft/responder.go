package soft

import (
	"github.com/novastream/novastream/rdma"
)

// wire is how one request's bytes come and how its replies go.
type wire interface {
	payload
	// enterer is what region.enter is to be given for transfers of this wire: nil
	// when they never wait.
	enterer() interrupter
	// reply sends a reply, with the bytes of a READ: they are in a region that has
	// been entered, which reply leaves when it needs it no more.
	reply(rp reply, r *region, data []byte) error
}

// turn is one caller's time at a responder: acknowledgements are put off until it
// ends, so that one serves many requests.
type turn struct {
	q   *qp
	w   wire
	due bool
}

// end sends what is due.
func (t *turn) end() error {
	if !t.due {
		return nil
	}
	t.due = false
	t.q.mu.Lock()
	psn := t.q.expected - 1
	t.q.mu.Unlock()
	return t.w.reply(reply{kind: ack, psn: psn}, nil, nil)
}

// serve executes a request of the peer, all of its bytes included. serveMu is held
// for as long as the turn lasts. An error means that the wire is of no use any
// more.
func (t *turn) serve(m *request) error {
	q := t.q
	q.mu.Lock()
	if q.state != rdma.RTS && q.state != rdma.RTR {
		q.mu.Unlock()
		return errEnded
	}
	expected := q.expected
	if m.psn > expected {
		nakked := q.nakked
		q.nakked = true
		q.mu.Unlock()
		return t.skip(m, !nakked, reply{kind: nakSeq, psn: expected})
	}
	var recv *rdma.RecvWR
	if m.psn == expected {
		q.nakked = false
		if m.op == rdma.OpSend || m.op == rdma.OpWriteImm {
			if q.rhead == q.rtail {
				q.nakked = true
				wait := q.opt.RNRTimer.Microseconds()
				q.mu.Unlock()
				return t.skip(m, true, reply{kind: nakRNR, psn: expected, value: uint32(wait)})
			}
			recv = q.recvAt(q.rhead)
		}
	}
	q.mu.Unlock()
	switch {
	case m.op == rdma.OpRead:
		return t.read(m)
	case m.psn < expected:
		t.due = true
		return t.w.discard(m.payload())
	case m.op == rdma.OpSend:
		return t.receive(m, recv)
	}
	return t.write(m)
}

// skip drops a request's bytes and, if told to, answers it.
func (t *turn) skip(m *request, answer bool, rp reply) error {
	if err := t.w.discard(m.payload()); err != nil || !answer {
		return err
	}
	t.due = false
	return t.w.reply(rp, nil, nil)
}

// write executes a WRITE.
func (t *turn) write(m *request) error {
	if m.length > 0 {
		r, mem := t.q.dev.keys.find(m.key, t.q.dom, rdma.RemoteWrite, m.remote, m.length)
		if mem == nil {
			return t.refuse(m, rdma.RemoteAccess, rdma.Success)
		}
		if err := t.land(r, mem); err != nil {
			if r.isClosed() {
				return t.refuse(m, rdma.RemoteAccess, rdma.Success)
			}
			return err
		}
	}
	return t.executed(m)
}

// receive executes a SEND.
func (t *turn) receive(m *request, recv *rdma.RecvWR) error {
	if m.length > recv.Local.Length {
		return t.refuse(m, rdma.RemoteInvalid, rdma.LocalLength)
	}
	if m.length > 0 {
		r, mem := t.q.dev.keys.find(recv.Local.LKey, t.q.dom, 0, recv.Local.Addr, m.length)
		if mem == nil {
			return t.refuse(m, rdma.RemoteOperation, rdma.LocalProtection)
		}
		if err := t.land(r, mem); err != nil {
			if r.isClosed() {
				return t.refuse(m, rdma.RemoteOperation, rdma.LocalProtection)
			}
			return err
		}
	}
	return t.executed(m)
}

// land moves a request's bytes to where they belong.
func (t *turn) land(r *region, mem []byte) error {
	x := t.w.enterer()
	if !r.enter(x) {
		return errEnded
	}
	defer r.exit(x)
	return t.w.read(mem)
}

// executed counts a request, and completes the receive that it consumes.
func (t *turn) executed(m *request) error {
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == rdma.Error {
		return errEnded
	}
	q.expected++
	t.due = true
	if m.op != rdma.OpSend && m.op != rdma.OpWriteImm {
		return nil
	}
	c := rdma.Completion{ID: q.recvAt(q.rhead).ID, QP: q.num, Bytes: m.length, Op: rdma.OpRecv}
	if m.op == rdma.OpWriteImm {
		c.Op, c.Imm, c.HasImm = rdma.OpRecvWrite, m.imm, true
	}
	q.rhead++
	if !q.rcq.push(entry{c: c, q: q, recv: true}) {
		q.fail(rdma.Flushed)
		q.dev.raise(rdma.Event{Kind: rdma.EventQPFatal, QP: q.num})
	}
	return nil
}

// read executes a READ, which may be one that was executed before.
func (t *turn) read(m *request) error {
	q := t.q
	var r *region
	var mem []byte
	if m.length > 0 {
		r, mem = q.dev.keys.find(m.key, q.dom, rdma.RemoteRead, m.remote, m.length)
		if mem == nil || !r.enter(t.w.enterer()) {
			return t.refuse(m, rdma.RemoteAccess, rdma.Success)
		}
	}
	q.mu.Lock()
	if m.psn == q.expected {
		q.expected++
	}
	t.due = t.due && m.psn+1 < q.expected // else the answer says it all
	q.mu.Unlock()
	return t.w.reply(reply{kind: readDone, psn: m.psn, value: m.length}, r, mem)
}

// refuse takes the queue pair to Error for a request that it cannot execute, and
// tells the peer, now and whenever it asks again.
func (t *turn) refuse(m *request, s, recv rdma.Status) error {
	q := t.q
	rp := reply{kind: nakFatal, status: s, psn: m.psn}
	q.mu.Lock()
	if q.state == rdma.Error {
		q.mu.Unlock()
		return errEnded
	}
	q.refusal = rp
	q.recvFailure = recv
	q.serving = nil // it has something to say yet
	q.fail(rdma.Flushed)
	q.mu.Unlock()
	q.dev.raise(rdma.Event{Kind: rdma.EventQPFatal, QP: q.num})
	if err := t.w.reply(rp, nil, nil); err != nil {
		return err
	}
	return errEnded
}
