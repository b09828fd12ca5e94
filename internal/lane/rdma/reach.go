package rdma

import (
	"context"
	"fmt"
	"time"

	"github.com/novastream/novastream/control"
)

// Patience with the peer, whose device may not be reachable although its
// node is.
const (
	helloTimeout   = 2 * time.Second
	connectTimeout = 5 * time.Second
)

// helloAgain is for how long a peer that was not reached is not tried again.
var helloAgain = time.Second

// reach sees to it that the two devices reach each other, once: the peer makes a
// queue pair, and something is written through it.
func (l *link) reach() error {
	l.reaching.Lock()
	defer l.reaching.Unlock()
	l.mu.Lock()
	out := l.out
	l.mu.Unlock()
	if out != nil {
		return nil
	}
	if l.refused != nil && time.Now().Before(l.again) {
		return l.refused
	}
	l.refused = l.hello()
	l.again = time.Now().Add(l.lane.again)
	return l.refused
}

func (l *link) hello() error {
	p, err := l.newProbe(uint64(lastProbe.Add(1)), true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	b := newWriter().bytes([]byte(l.lane.provider.Name())).uint(p.id).bytes(p.conn.qp.Address())
	msg, err := l.peer.Call(ctx, "rdma_hello", control.Message{Payload: b})
	if err != nil {
		p.close()
		return fmt.Errorf("the receiver's node: %w", err)
	}
	r := newReader(msg.Payload)
	address := r.bytes()
	if err = r.end("answer to rdma_hello"); err == nil {
		if err = p.connect(ctx, address); err == nil {
			err = p.try(ctx)
		}
	}
	l.mu.Lock()
	if err == nil && l.over {
		err = control.ErrConnLost
	}
	if err == nil {
		l.out = p
	}
	l.mu.Unlock()
	if err != nil {
		go p.close()
		return fmt.Errorf("the receiver's device does not answer: %w", err)
	}
	return nil
}

// greeted is the other side of hello.
func (l *link) greeted(ctx context.Context, id uint64, address []byte) ([]byte, error) {
	p, err := l.newProbe(id, false)
	if err != nil {
		return nil, err
	}
	if err := p.connect(ctx, address); err != nil {
		p.close()
		return nil, err
	}
	l.mu.Lock()
	old := l.in
	over := l.over
	if !over {
		l.in = p
	}
	l.mu.Unlock()
	if over {
		p.close()
		return nil, control.ErrConnLost
	}
	go old.close()
	return p.conn.qp.Address(), nil
}
