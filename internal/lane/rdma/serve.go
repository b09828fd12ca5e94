package rdma

import (
	"context"
	"errors"
	"fmt"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
)

func (l *Lane) serveHello(ctx context.Context, from *control.Peer, msg control.Message) (control.Message, error) {
	lane.CloseFDs(msg.FDs)
	r := newReader(msg.Payload)
	theirs, id, address := string(r.bytes()), r.uint(), r.bytes()
	if err := r.end("rdma_hello"); err != nil {
		return control.Message{}, err
	}
	if err := l.same(theirs); err != nil {
		return control.Message{}, unavailable(err)
	}
	k, err := l.link(from)
	if err != nil {
		return control.Message{}, unavailable(err)
	}
	mine, err := k.greeted(ctx, id, address)
	if err != nil {
		return control.Message{}, unavailable(err)
	}
	return control.Message{Payload: newWriter().bytes(mine)}, nil
}

func (l *Lane) serveConnect(ctx context.Context, from *control.Peer, msg control.Message) (control.Message, error) {
	lane.CloseFDs(msg.FDs)
	r := newReader(msg.Payload)
	outlet, p := r.uint(), r.place()
	if err := r.end("rdma_connect"); err != nil {
		return control.Message{}, err
	}
	l.mu.Lock()
	s := l.sinks[key{from, outlet}]
	l.mu.Unlock()
	if s == nil {
		return control.Message{}, fmt.Errorf("%w: the receiver has closed the stream", fault.ErrClosed)
	}
	if err := s.qp.Connect(ctx, p.address, l.opt); err != nil {
		return control.Message{}, unavailable(err)
	}
	s.connected(p)
	return control.Message{}, nil
}

func (l *Lane) serveFailed(_ context.Context, from *control.Peer, msg control.Message) (control.Message, error) {
	lane.CloseFDs(msg.FDs)
	r := newReader(msg.Payload)
	outlet, to, text := r.uint(), r.uint(), r.bytes()
	if err := r.end("rdma_failed"); err != nil {
		return control.Message{}, err
	}
	k := key{from, outlet}
	err := fmt.Errorf("%w: %.200q", errOther, text)
	l.mu.Lock()
	s, p := l.sinks[k], l.pumps[k]
	l.mu.Unlock()
	if to == toSender {
		if p != nil {
			p.breaks(err, true)
		}
		return control.Message{}, nil
	}
	arrived := s != nil && s.breaksUnlessEnded(err)
	l.mu.Lock()
	arrived = arrived || l.arrived.has(k)
	l.mu.Unlock()
	if arrived {
		return control.Message{Payload: answered}, nil
	}
	return control.Message{}, nil
}

func (l *Lane) serveLost(_ context.Context, from *control.Peer, msg control.Message) (control.Message, error) {
	lane.CloseFDs(msg.FDs)
	r := newReader(msg.Payload)
	id, out := r.uint(), r.uint()
	if err := r.end("rdma_lost"); err != nil {
		return control.Message{}, err
	}
	l.mu.Lock()
	k := l.links[from]
	l.mu.Unlock()
	if k == nil {
		return control.Message{Payload: answered}, nil
	}
	return control.Message{Payload: k.peerLost(id, out == 1)}, nil
}

// recent remembers the sessions whose end has arrived, for senders that did not
// hear of it: an acknowledgement may be lost, and the receiver be gone before it is
// sent again.
type recent struct {
	set   map[key]bool
	order [512]key
	n     int
}

func (r *recent) has(k key) bool { return r.set[k] }

func (r *recent) add(k key) {
	if r.set == nil {
		r.set = map[key]bool{}
	}
	at := &r.order[r.n%len(r.order)]
	delete(r.set, *at)
	*at = k
	r.set[k] = true
	r.n++
}

var errOther = errors.New("the other side's queue pair has failed")
