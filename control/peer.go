package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// conn is what carries envelopes to one peer.
type conn interface {
	// send sends one envelope, and may be called concurrently. It blocks as
	// long as ctx allows while the peer does not read.
	send(ctx context.Context, e *controlpb.Envelope, fds []int) error
	// bulk sends an active message by a way on which it delays no envelope.
	bulk(ctx context.Context, e *controlpb.Envelope) error
	// drain lets what was sent leave, then has the peer see the end.
	drain()
	// close ends the connection and what reads from it.
	close()
}

// Peer is a connection to another node. Its methods may be called concurrently.
type Peer struct {
	node      *Node
	conn      conn
	transport Transport
	instance  InstanceID
	worker    WorkerID
	uid, pid  int
	found     bool            // may be used to reach the worker that it says it is
	ctx       context.Context // ends with the connection
	cancel    context.CancelFunc

	next  atomic.Uint64
	last  atomic.Int64 // when something was heard, in nanoseconds since the node's start
	watch watcher

	mu       sync.Mutex
	err      error
	done     chan struct{}
	pending  map[uint64]*call
	serving  map[uint64]context.CancelFunc
	onClose  map[uint64]func(error)
	lastStop uint64
	deaths   deaths
}

// call is a request that waits for its answer.
type call struct {
	done chan struct{}
	msg  Message
	err  error
}

func newPeer(n *Node, t Transport, id InstanceID) *Peer {
	p := &Peer{
		node: n, transport: t, instance: id, worker: WorkerOf(id), uid: -1, pid: -1,
		done: make(chan struct{}), pending: map[uint64]*call{}, onClose: map[uint64]func(error){},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.heard()
	return p
}

// WorkerID is the peer's.
func (p *Peer) WorkerID() WorkerID { return p.worker }

// InstanceID is the peer's.
func (p *Peer) InstanceID() InstanceID { return p.instance }

// Transport is what carries the connection.
func (p *Peer) Transport() Transport { return p.transport }

// Local tells whether descriptors can be passed: the peer runs on the same
// kernel.
func (p *Peer) Local() bool { return p.transport == Unix }

// UID is the user of the peer's process, -1 when the transport does not tell.
func (p *Peer) UID() int { return p.uid }

// PID is the peer's process as this namespace sees it, -1 when the transport
// does not tell.
func (p *Peer) PID() int { return p.pid }

// Done is closed when the connection has ended; Err says why.
func (p *Peer) Done() <-chan struct{} { return p.done }

// Err is why the connection has ended, nil while it has not.
func (p *Peer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// OnClose has fn called once when the connection ends, at once if it has. It is
// called by the goroutine that notices, and must not block. Stop tells whether
// it has kept fn from being called.
func (p *Peer) OnClose(fn func(error)) (stop func() bool) {
	p.mu.Lock()
	if p.err != nil {
		err := p.err
		p.mu.Unlock()
		fn(err)
		return func() bool { return false }
	}
	p.lastStop++
	id := p.lastStop
	p.onClose[id] = fn
	p.mu.Unlock()
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, ok := p.onClose[id]
		delete(p.onClose, id)
		return ok
	}
}

// fail ends the connection, once, and fails everything that waits for it.
func (p *Peer) fail(err error) {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return
	}
	p.err = fmt.Errorf("%w: worker %v over %v: %w", ErrConnLost, p.worker, p.transport, err)
	err = p.err
	pending, fns := p.pending, p.onClose
	p.pending, p.onClose = nil, nil
	p.mu.Unlock()
	p.node.gone(p) // before anybody is told: who asks for the worker again gets no dead connection
	close(p.done)
	p.cancel()
	p.watch.end()
	for _, fn := range fns {
		fn(err)
	}
	for _, c := range pending {
		c.err = err
		close(c.done)
	}
	p.conn.close()
	within := deathbed
	if errors.Is(err, ErrClosed) { // by this side
		within = 0
	}
	p.mourn(within)
}

// Close ends the connection.
func (p *Peer) Close() error {
	p.fail(ErrClosed)
	return nil
}

// Call calls a unary handler. The context's deadline is the handler's too.
// Errors: ErrDeadline, ErrConnLost, ErrMessageTooLarge, ErrNoDescriptors,
// ErrUnknownHandler, ErrHandlerPanic, ErrShutdown, ErrLimit, or what the handler answers,
// as a *RemoteError.
func (p *Peer) Call(ctx context.Context, name string, req Message) (Message, error) {
	if ctx.Err() != nil {
		return Message{}, deadline(ctx, name)
	}
	c := &call{done: make(chan struct{})}
	id := p.next.Add(1)
	p.mu.Lock()
	if p.err != nil {
		defer p.mu.Unlock()
		return Message{}, p.err
	}
	p.pending[id] = c
	p.mu.Unlock()
	e := &controlpb.Envelope{Type: controlpb.Envelope_REQUEST, Id: id, Name: name, Payload: req.Payload}
	if t, ok := ctx.Deadline(); ok {
		e.Timeout = max(int64(time.Until(t)), 1)
	}
	if err := p.send(ctx, e, req.FDs); err != nil {
		if p.forget(id) {
			return Message{}, err
		}
		<-c.done
		return Message{}, err
	}
	select {
	case <-c.done:
		return c.msg, c.err
	case <-ctx.Done():
	}
	if !p.forget(id) { // the answer comes this moment
		<-c.done
		return c.msg, c.err
	}
	_ = p.send(p.ctx, &controlpb.Envelope{Type: controlpb.Envelope_CANCEL, Id: id}, nil)
	return Message{}, deadline(ctx, name)
}

// forget takes a call off the list; it answers false when somebody else has.
func (p *Peer) forget(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.pending[id]
	delete(p.pending, id)
	return ok
}

// failed ends a call with an error of this side.
func (p *Peer) failed(id uint64, err error) {
	p.mu.Lock()
	c := p.pending[id]
	delete(p.pending, id)
	p.mu.Unlock()
	if c != nil {
		c.err = err
		close(c.done)
	}
}

func (p *Peer) answered(e *controlpb.Envelope, fds []int) {
	p.mu.Lock()
	c := p.pending[e.Id]
	delete(p.pending, e.Id)
	p.mu.Unlock()
	if c == nil { // nobody waits any more
		closeFDs(fds)
		return
	}
	if e.Error != nil {
		closeFDs(fds)
		c.err = decodeError(e.Error)
	} else {
		c.msg = Message{Payload: append([]byte(nil), e.Payload...), FDs: fds}
	}
	close(c.done)
}

// answer answers a request. It closes the answer's descriptors.
func (p *Peer) answer(id uint64, msg Message, err error) {
	defer closeFDs(msg.FDs)
	if msg.Sent != nil {
		defer msg.Sent()
	}
	e := &controlpb.Envelope{Type: controlpb.Envelope_RESPONSE, Id: id, Payload: msg.Payload}
	if err != nil {
		e.Error, e.Payload, msg.FDs = encodeError(err), nil, nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, answerTimeout)
	defer cancel()
	err = p.send(ctx, e, msg.FDs)
	if errors.Is(err, ErrMessageTooLarge) || errors.Is(err, ErrNoDescriptors) {
		e.Error, e.Payload = encodeError(err), nil
		err = p.send(ctx, e, nil)
	}
	if errors.Is(err, ErrDeadline) {
		p.fail(fmt.Errorf("it does not read its answers: %w", err))
	}
}

// answerTimeout is how long a peer that does not read may hold up an answer;
// then the connection is given up.
var answerTimeout = 10 * time.Second

// Send sends an active message. Nil means that it is on its way, not that it
// arrives: the end of the connection is the only news of a loss.
func (p *Peer) Send(ctx context.Context, name string, msg Message) error {
	return p.send(ctx, &controlpb.Envelope{Type: controlpb.Envelope_MESSAGE, Name: name, Payload: msg.Payload}, msg.FDs)
}

// SendBulk sends an active message on a way of its own, where it delays no
// other. It blocks while the peer's node does not keep up. Bulk messages arrive
// in order among themselves. The payload may be used again when it returns.
func (p *Peer) SendBulk(ctx context.Context, name string, payload []byte) error {
	e := &controlpb.Envelope{Type: controlpb.Envelope_MESSAGE, Name: name, Payload: payload}
	if err := p.check(ctx, e, nil); err != nil {
		return err
	}
	return p.lost(ctx, p.conn.bulk(ctx, e), name)
}

func (p *Peer) check(ctx context.Context, e *controlpb.Envelope, fds []int) error {
	switch {
	case len(e.Payload) > p.node.maxMessage:
		return fmt.Errorf("%w: %s: %d bytes, at most %d: see WithMaxMessage", ErrMessageTooLarge, e.Name, len(e.Payload), p.node.maxMessage)
	case len(fds) > MaxFDs:
		return fmt.Errorf("%w: %s: %d descriptors, at most %d", ErrMessageTooLarge, e.Name, len(fds), MaxFDs)
	case len(fds) > 0 && p.transport != Unix:
		return fmt.Errorf("%w: %s over %v", ErrNoDescriptors, e.Name, p.transport)
	case ctx.Err() != nil:
		return deadline(ctx, e.Name)
	}
	return p.Err()
}

func (p *Peer) send(ctx context.Context, e *controlpb.Envelope, fds []int) error {
	if err := p.check(ctx, e, fds); err != nil {
		return err
	}
	e.Descriptors = uint32(len(fds))
	return p.lost(ctx, p.conn.send(ctx, e, fds), e.Name)
}

// lost gives a failed write its name.
func (p *Peer) lost(ctx context.Context, err error, what string) error {
	if err == nil {
		return nil
	}
	if e := p.Err(); e != nil {
		return e
	}
	if ctx.Err() != nil {
		return deadline(ctx, what)
	}
	return fmt.Errorf("%w: %s to worker %v: %w", ErrConnLost, what, p.worker, err)
}

// requestContext makes the context of a request that is served.
func (p *Peer) requestContext(id uint64, timeout int64) (context.Context, context.CancelFunc) {
	var ctx context.Context
	var cancel context.CancelFunc
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(p.ctx, time.Duration(timeout))
	} else {
		ctx, cancel = context.WithCancel(p.ctx)
	}
	p.mu.Lock()
	if p.serving == nil {
		p.serving = map[uint64]context.CancelFunc{}
	}
	p.serving[id] = cancel
	p.mu.Unlock()
	return ctx, func() {
		p.mu.Lock()
		delete(p.serving, id)
		p.mu.Unlock()
		cancel()
	}
}

func (p *Peer) cancelled(id uint64) {
	p.mu.Lock()
	cancel := p.serving[id]
	p.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
