package soft

import "github.com/novastream/novastream/rdma"

// direct is the link to a responder of the same process: send executes the
// requests itself, and takes the replies.
type direct struct {
	q    *qp
	peer *qp
	nak  bool   // the peer has answered that it expects something else
	src  []byte // bytes of the request at hand
}

// reach finds the responder that a queue pair is connected to. It must be connected
// back, and ready.
func (d *Device) reach(q *qp) (*qp, reply, error) {
	p := d.find(q.remote.num)
	if p == nil || p.token != q.remote.qp || !d.reachable() || !q.dev.reachable() {
		return nil, reply{}, errUnreachable
	}
	answer, ok := p.admit(q.dev.id, q.num, q.token)
	if !ok {
		return nil, reply{}, errUnreachable
	}
	return p, answer, nil
}

// admit answers a requester that wants to be served: what the responder expects
// next, or why it serves no more.
func (q *qp) admit(dev id, num uint32, token id) (reply, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.remote.dev != dev || q.remote.num != num || q.remote.qp != token {
		return reply{}, false
	}
	switch {
	case q.refusal.kind != 0:
		return q.refusal, true
	case q.state == rdma.RTS:
		q.nakked = false
		return reply{kind: nakSeq, psn: q.expected}, true
	}
	return reply{}, false
}

// open makes a link to where the queue pair is connected.
func (q *qp) open() (link, reply, error) {
	if d, ok := q.dev.local(q.remote.dev); ok {
		p, answer, err := d.reach(q)
		if err != nil {
			return nil, reply{}, err
		}
		return &direct{q: q, peer: p}, answer, nil
	}
	return q.dial()
}

func (l *direct) send(batch []message) (int, error) {
	p := l.peer
	if !p.dev.reachable() || !l.q.dev.reachable() {
		return 0, errUnreachable
	}
	p.serveMu.Lock()
	defer p.serveMu.Unlock()
	l.nak = false
	t := turn{q: p, w: l}
	for i := range batch {
		if l.nak {
			return i, nil
		}
		if ok, err := l.one(&t, &batch[i]); err != nil || !ok {
			t.end()
			return i, err
		}
	}
	return len(batch), t.end()
}

// one executes one request; false when its local memory has gone.
func (l *direct) one(t *turn, m *message) (bool, error) {
	if l.src = m.data; m.payload() > 0 && l.src == nil {
		r, mem := l.q.dev.keys.find(m.local.LKey, l.q.dom, 0, m.local.Addr, m.local.Length)
		if mem == nil || !r.enter(nil) {
			return false, nil
		}
		defer r.exit(nil)
		l.src = mem
	}
	return true, t.serve(&m.request)
}

func (*direct) interrupt()           {}
func (*direct) close()               {}
func (*direct) enterer() interrupter { return nil }

func (l *direct) read(dst []byte) error {
	copyAcross(dst, l.src)
	return nil
}

func (*direct) discard(int) error { return nil }

func (l *direct) reply(rp reply, r *region, data []byte) error {
	if r != nil {
		defer r.exit(nil)
	}
	l.nak = rp.kind > readDone
	return l.q.onReply(l, rp, answered(data))
}

// answered is the bytes of a READ, in the peer's memory.
type answered []byte

func (a answered) read(dst []byte) error {
	copyAcross(dst, a)
	return nil
}

func (answered) discard(int) error { return nil }

// copyAcross copies between two regions.
func copyAcross(dst, src []byte) {
	if words(src) == nil {
		copyIn(dst, src)
		return
	}
	var b [wordwise]byte
	copyOut(b[:len(src)], src)
	copyIn(dst, b[:len(src)])
}
