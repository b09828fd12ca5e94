package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// Message is what a handler gets and answers.
type Message struct {
	// Payload is the handler's business. That of an inline active message is
	// valid during the call only.
	Payload []byte
	// FDs are descriptors, which travel over a Unix socket alone. In a request
	// or active message they stay the sender's; whoever receives any owns them;
	// those in a handler's answer are closed when it has been sent.
	FDs []int
	// Sent, in a handler's answer, is called when the answer is on its way, or
	// cannot be sent: for work that the caller need not wait for.
	Sent func()
}

// MaxFDs is how many descriptors a message may carry.
const MaxFDs = 8

// Unary is a handler that answers. The context ends at the caller's deadline,
// when the caller gives up, and with the connection.
type Unary func(ctx context.Context, from *Peer, req Message) (Message, error)

// AM is a handler of active messages.
type AM func(ctx context.Context, from *Peer, msg Message)

// handler is a registered handler: unary or am is set.
type handler struct {
	unary  Unary
	am     AM
	inline bool
}

// Handle registers a unary handler, which runs in a goroutine of its own.
func (n *Node) Handle(name string, h Unary) error { return n.register(name, handler{unary: h}) }

// HandleAM registers a handler of active messages, which runs in a goroutine of
// its own: two messages may be handled in any order.
func (n *Node) HandleAM(name string, h AM) error { return n.register(name, handler{am: h}) }

// HandleInline registers a unary handler that runs in the connection's reader:
// it must not block, nor call the peer. It saves two hand-overs between
// goroutines, tens of microseconds when the processors sleep.
func (n *Node) HandleInline(name string, h Unary) error {
	return n.register(name, handler{unary: h, inline: true})
}

// HandleAMInline is HandleAM in the connection's reader, in order; see
// HandleInline.
func (n *Node) HandleAMInline(name string, h AM) error {
	return n.register(name, handler{am: h, inline: true})
}

func (n *Node) register(name string, h handler) error {
	if name == "" || len(name) > 255 {
		return fmt.Errorf("%w: handler name %q: use 1 to 255 bytes", ErrConfig, name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.handlers[name]; ok {
		return fmt.Errorf("%w: %q", ErrDuplicateHandler, name)
	}
	// Readers look without a lock: the map is never changed, but replaced.
	next := make(map[string]handler, len(n.handlers)+1)
	for k, v := range n.handlers {
		next[k] = v
	}
	next[name] = h
	n.handlers = next
	n.table.Store(&next)
	return nil
}

// serve takes an envelope of a peer. It is called by the connection's reader,
// one envelope after another; e may be reused afterwards.
func (p *Peer) serve(e *controlpb.Envelope, fds []int) {
	p.heard()
	if int(e.Descriptors) > len(fds) {
		p.incomplete(e)
		return
	}
	switch e.Type {
	case controlpb.Envelope_RESPONSE:
		p.answered(e, fds)
		return
	case controlpb.Envelope_REQUEST:
		p.request(e, fds)
		return
	case controlpb.Envelope_MESSAGE:
		p.message(e, fds)
		return
	case controlpb.Envelope_CANCEL:
		p.cancelled(e.Id)
	case controlpb.Envelope_PING:
		p.pong()
	case controlpb.Envelope_PONG:
	default:
		p.fail(fmt.Errorf("%w: envelope of type %v", ErrMalformed, e.Type))
	}
	closeFDs(fds)
}

// incomplete serves an envelope whose descriptors this process had no room for.
func (p *Peer) incomplete(e *controlpb.Envelope) {
	err := fmt.Errorf("%w: no room for the %d descriptors of %q: %s", ErrLimit, e.Descriptors, e.Name, descriptorLimit())
	switch e.Type {
	case controlpb.Envelope_RESPONSE:
		p.failed(e.Id, err)
	case controlpb.Envelope_REQUEST:
		p.answer(e.Id, Message{}, err)
	default:
		p.node.log.Warn("message refused", "handler", e.Name, "worker", p.worker, "error", err)
	}
}

func (p *Peer) message(e *controlpb.Envelope, fds []int) {
	h := (*p.node.table.Load())[e.Name]
	if h.am == nil {
		closeFDs(fds)
		p.node.log.Warn("active message refused", "handler", e.Name, "worker", p.worker, "error", ErrUnknownHandler)
		return
	}
	msg := Message{Payload: e.Payload, FDs: fds}
	if h.inline {
		p.runAM(h.am, e.Name, msg)
		return
	}
	msg.Payload = append([]byte(nil), e.Payload...)
	name := e.Name
	if !p.node.begin() {
		closeFDs(fds)
		return
	}
	go func() {
		defer p.node.end()
		p.runAM(h.am, name, msg)
	}()
}

func (p *Peer) runAM(h AM, name string, msg Message) {
	defer func() {
		if v := recover(); v != nil {
			p.node.log.Error("handler panicked", "handler", name, "worker", p.worker, "panic", v)
		}
	}()
	h(p.ctx, p, msg)
}

func (p *Peer) request(e *controlpb.Envelope, fds []int) {
	h := (*p.node.table.Load())[e.Name]
	id, name := e.Id, e.Name
	if h.unary == nil {
		closeFDs(fds)
		p.answer(id, Message{}, fmt.Errorf("%w: %q at worker %v", ErrUnknownHandler, name, p.node.worker))
		return
	}
	if !p.node.begin() {
		closeFDs(fds)
		p.answer(id, Message{}, fmt.Errorf("%w: worker %v", ErrShutdown, p.node.worker))
		return
	}
	msg := Message{Payload: e.Payload, FDs: fds}
	if h.inline {
		defer p.node.end()
		resp, err := p.runUnary(p.ctx, h.unary, name, msg)
		p.answer(id, resp, err)
		return
	}
	msg.Payload = append([]byte(nil), e.Payload...)
	ctx, cancel := p.requestContext(id, e.Timeout)
	go func() {
		defer p.node.end()
		defer cancel()
		resp, err := p.runUnary(ctx, h.unary, name, msg)
		if e := ctx.Err(); e != nil && (err == nil || errors.Is(err, e)) {
			err = deadline(ctx, name) // the same as if the caller's clock had been first
		}
		p.answer(id, resp, err)
	}()
}

func (p *Peer) runUnary(ctx context.Context, h Unary, name string, msg Message) (resp Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.node.log.Error("handler panicked", "handler", name, "worker", p.worker, "panic", v)
			err = fmt.Errorf("%w: %q at worker %v: %v", ErrHandlerPanic, name, p.node.worker, v)
		}
	}()
	return h(ctx, p, msg)
}
