package rdma

import (
	"bytes"
	"context"
	"fmt"

	"github.com/novastream/novastream/control"
)

// take takes the probe with this name off, nil when there is none.
func (l *link) take(id uint64, out bool) (p *probe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := &l.in
	if out {
		at = &l.out
	}
	if p = *at; p == nil || p.id != id {
		return nil
	}
	*at = nil
	return p
}

// lost takes note that a probe of this side has failed. The peer is asked before
// anything is concluded: when it has given its end of the probe up, that explains
// the failure, and the path may be as good as before; a new probe tells. Otherwise
// nothing comes through, and the sessions that there were when the failed write set
// out, until, fail; each tells the other side, and does not wait for the answer of one
// that has given none here.
func (l *link) lost(p *probe, until uint64, err error) {
	if l.take(p.id, p.out) == nil { // replaced
		p.close()
		return
	}
	l.failing.Store(p.id)
	ctx, cancel := context.WithTimeout(context.Background(), tellTimeout)
	defer cancel()
	b := newWriter().uint(p.id).uint(b2u(!p.out))
	msg, e := l.peer.Call(ctx, "rdma_lost", control.Message{Payload: b})
	if e != nil || !bytes.Equal(msg.Payload, answered) {
		l.breakUpTo(until, err, e != nil)
	}
	go p.close()
	l.renew()
}

// peerLost is the other side of lost, and answers answered when the probe had been given up
// here before, and for no failure of its own.
func (l *link) peerLost(id uint64, out bool) []byte {
	p := l.take(id, out)
	if p == nil {
		if l.failing.Load() == id {
			return nil
		}
		return answered
	}
	go p.close()
	go l.renew()
	return nil
}

// answered is the answer yes.
var answered = []byte{version}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// renew makes a probe for the sessions that are left.
func (l *link) renew() {
	if l.sessions() == 0 {
		return
	}
	now := l.count.Load()
	if err := l.reach(); err != nil {
		l.breakUpTo(now, err, false)
	}
}

// breakUpTo fails the first n sessions. Silent says that the peer does not answer at
// present.
func (l *link) breakUpTo(n uint64, err error, silent bool) {
	var broken []*session
	l.mu.Lock()
	for s, i := range l.ends {
		if i <= n {
			broken = append(broken, s)
		}
	}
	l.mu.Unlock()
	for _, s := range broken {
		err := fmt.Errorf("link to worker %v: %w", l.peer.WorkerID(), err)
		if silent {
			s.report(err)
		}
		s.breaks(err, silent)
	}
}
