package stream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
)

// accept is the receiver's half of an attach. Peer is nil for a sender of this
// process. On success the reply's descriptors are the caller's.
func (g *Registry) accept(peer *control.Peer, req *wire.AttachRequest) (*wire.AttachReply, lane.Reply, error) {
	if err := g.isClosing(); err != nil {
		return nil, lane.Reply{}, err
	}
	var h handle.Handle
	if err := h.UnmarshalBinary(req.Handle); err != nil {
		return nil, lane.Reply{}, err
	}
	if h.Worker() != uint64(g.node.WorkerID()) {
		return nil, lane.Reply{}, fmt.Errorf("%w: %v: this is worker %v", fault.ErrOtherWorker, h, g.node.WorkerID())
	}
	a, err := g.anchors.get(h)
	if err != nil {
		return nil, lane.Reply{}, err
	}
	return a.accept(peer, req)
}

func (a *Anchor) accept(peer *control.Peer, req *wire.AttachRequest) (*wire.AttachReply, lane.Reply, error) {
	if err := a.opt.Payload.match(req); err != nil {
		return nil, lane.Reply{}, fmt.Errorf("%w: %v", err, a.h)
	}
	l, offer, err := a.choose(req)
	if err != nil {
		return nil, lane.Reply{}, err
	}
	in := &Inbound{a: a, peer: peer, key: inKey{peer, req.Outlet}, lane: l.Name(), started: time.Now()}
	if err := a.reg.unknown(in.key); err != nil {
		return nil, lane.Reply{}, err
	}
	if err := a.take(in); err != nil {
		return nil, lane.Reply{}, err
	}
	failpoint.Hit("accept/placed")
	reply, err := a.connect(in, l, offer)
	if err != nil {
		in.detach()
		return nil, lane.Reply{}, err
	}
	failpoint.Hit("accept/ring")
	if err := a.admit(in); err != nil {
		lane.CloseFDs(reply.FDs)
		return nil, lane.Reply{}, err
	}
	failpoint.Hit("accept/admitted")
	geo := a.opt.Geometry
	if in.record == 0 {
		geo.Producers = 1
	}
	return &wire.AttachReply{
		Sender: in.sender, Lane: in.lane, Data: reply.Data,
		SlotSize: uint32(geo.SlotSize), Slots: uint32(geo.Slots), Producers: uint32(geo.Producers),
		Start: reply.Session.Start, Tag: uint32(reply.Session.Tag),
		Record: uint32(reply.Record), Generation: reply.Generation,
	}, reply, nil
}

// match compares what the sender sends with what the receiver takes.
func (p *Payload) match(req *wire.AttachRequest) error {
	switch {
	case p.Codec != req.Codec:
		return fmt.Errorf("%w: the receiver takes %q (%s), the sender sends %q", fault.ErrTypeMismatch, p.Codec, p.Type, req.Codec)
	case p.Size != int(req.Payload):
		return fmt.Errorf("%w: the receiver's %s has %d bytes, the sender's type %d", fault.ErrTypeMismatch, p.Type, p.Size, req.Payload)
	case p.Fingerprint != req.Fingerprint:
		return fmt.Errorf("%w: the receiver's %s has layout %016x, the sender's type %016x: fields differ in name, order, size or kind",
			fault.ErrTypeMismatch, p.Type, p.Fingerprint, req.Fingerprint)
	}
	return nil
}

// choose picks the best lane that both sides have.
func (a *Anchor) choose(req *wire.AttachRequest) (lane.Lane, []byte, error) {
	offered := make([]string, 0, len(req.Offers))
	for _, l := range a.reg.lanes {
		if !allowed(a.opt.Lanes, l.Name()) {
			continue
		}
		for _, o := range req.Offers {
			if o.Lane == l.Name() {
				return l, o.Data, nil
			}
		}
	}
	for _, o := range req.Offers {
		offered = append(offered, o.Lane)
	}
	mine := a.opt.Lanes
	if mine == nil {
		mine = a.reg.laneNames()
	}
	return nil, nil, fmt.Errorf("%w: the sender offers %v, the receiver takes %v", fault.ErrLaneUnavailable, offered, mine)
}

// refusal is why the stream takes no sender any more. The lock is held.
func (a *Anchor) refusal() error {
	switch a.state {
	case cancelled, stopped:
		return fmt.Errorf("%v: %w", a.h, &fault.CancelError{Reason: a.reason})
	case timedOut:
		return fmt.Errorf("%w: %v: nobody attached in time", fault.ErrTimeout, a.h)
	case ended:
		return fmt.Errorf("%w: %v", fault.ErrFinalized, a.h)
	case closed:
		return fmt.Errorf("%w: %v", fault.ErrClosed, a.h)
	}
	return nil
}

// maxUnread bounds the rings that are held for sessions which are over and whose end
// the consumer has not come to.
const maxUnread = 1024

// take takes one of the anchor's places.
func (a *Anchor) take(in *Inbound) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refusal(); err != nil {
		return err
	}
	if len(a.all) >= a.opt.MaxSenders+maxUnread {
		return fmt.Errorf("%w: %v: the receiver has not read to the end of %d sessions: read on, or close the stream", fault.ErrLimit, a.h, len(a.all))
	}
	if !a.opt.Shared && slices.ContainsFunc(a.all, (*Inbound).dropping) {
		return fmt.Errorf("%w: %v: it is gone, and the receiver has not read as far", fault.ErrAlreadyAttached, a.h)
	}
	if a.senders >= a.opt.MaxSenders {
		if !a.opt.Shared {
			return fmt.Errorf("%w: %v", fault.ErrAlreadyAttached, a.h)
		}
		return fmt.Errorf("%w: %v: %d are attached, of %d at most", fault.ErrTooManySenders, a.h, a.senders, a.opt.MaxSenders)
	}
	a.senders++
	a.timer.pause()
	a.last++
	in.sender = a.last
	in.attached.Store(true)
	return nil
}

// dropping tells whether the sender has gone in the midst of its session, as far as is
// known, and the consumer has not come to that: an exclusive stream will be over then,
// unless the ring shows that it had detached before.
func (in *Inbound) dropping() bool { return in.lost.Load() && !in.told.Load() }

// connect makes the session's ring, or joins the shared one.
func (a *Anchor) connect(in *Inbound, l lane.Lane, offer []byte) (lane.Reply, error) {
	req := lane.Request{
		Peer: in.peer, Outlet: in.key.outlet, Geometry: a.opt.Geometry, Wait: a.opt.Wait, HugePages: a.opt.HugePages,
		Offer: offer, Compression: a.opt.Compression,
		Fail: func(err error) { in.leave(TransportError, fmt.Errorf("%w: %w", fault.ErrTransport, err)) },
	}
	if a.opt.OneRing {
		if _, ok := l.(lane.Sharer); ok {
			return a.join(in, req)
		}
		req.Geometry.Producers = 1
	}
	if err := a.reg.reserve(req.Geometry.SegmentSize()); err != nil {
		return lane.Reply{}, err
	}
	end, reply, err := l.Accept(req)
	if err != nil {
		a.reg.memory.Add(-int64(req.Geometry.SegmentSize()))
		return lane.Reply{}, fmt.Errorf("lane %s: %w", l.Name(), limit(err))
	}
	in.end = end
	a.reg.huge.Add(int64(end.HugeBytes))
	in.c = end.Ring.Consumer(end.Session, end.Wake)
	return reply, nil
}

// unknown tells whether there is no session with a key. Attaches over one
// connection come one after another, so there is none either when it is admitted.
func (g *Registry) unknown(key inKey) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inbound[key] != nil {
		return fmt.Errorf("%w: outlet %d is attached already", fault.ErrMisuse, key.outlet)
	}
	return nil
}

// admit makes the session known, unless the anchor was ended meanwhile.
func (a *Anchor) admit(in *Inbound) error {
	a.reg.mu.Lock()
	a.reg.inbound[in.key] = in
	a.reg.mu.Unlock()
	a.mu.Lock()
	if a.state == open {
		a.arrivals = append(a.arrivals, in)
		a.all = append(a.all, in)
		a.mu.Unlock()
		in.watch()
		a.signal.Store(true)
		if in.peer == nil {
			a.wake() // else when the answer has been sent
		}
		return nil
	}
	err := a.refusal()
	a.mu.Unlock()
	if in.c != nil {
		in.c.Seal()
	}
	if in.record > 0 {
		a.pool.retract(in)
	}
	in.release(false)
	return err
}

func (g *Registry) serveAttach(_ context.Context, from *control.Peer, msg control.Message) (control.Message, error) {
	lane.CloseFDs(msg.FDs)
	var req wire.AttachRequest
	if err := proto.Unmarshal(msg.Payload, &req); err != nil {
		return control.Message{}, fmt.Errorf("%w: stream_attach: %w", fault.ErrCorrupt, err)
	}
	reply, l, err := g.accept(from, &req)
	if err != nil {
		return control.Message{}, err
	}
	b, err := proto.Marshal(reply)
	return control.Message{Payload: b, FDs: l.FDs, Sent: func() { g.arrived(req.Handle) }}, err
}

// arrived wakes the consumer of a stream that a sender has come to. The sender
// does not wait for that: on few processors it would take its place.
func (g *Registry) arrived(name []byte) {
	var h handle.Handle
	_ = h.UnmarshalBinary(name)
	if a, err := g.anchors.get(h); err == nil {
		a.wake()
	}
}

// session finds the session that a sender names.
func (g *Registry) session(from *control.Peer, msg []byte) (*Inbound, *wire.End) {
	var m wire.End
	if err := proto.Unmarshal(msg, &m); err != nil {
		g.log.Warn("malformed message refused", "message", "stream_end", "error", err)
		g.refused.Add(1)
		return nil, nil
	}
	g.mu.Lock()
	in := g.inbound[inKey{from, m.Outlet}]
	g.mu.Unlock()
	if in == nil {
		g.refused.Add(1)
	}
	return in, &m
}

// serveEnd answers when the sender's place is free.
func (g *Registry) serveEnd(_ context.Context, from *control.Peer, msg control.Message) (control.Message, error) {
	lane.CloseFDs(msg.FDs)
	if in, m := g.session(from, msg.Payload); in != nil {
		in.said(m)
	}
	return control.Message{}, nil
}

func (g *Registry) serveEnded(_ context.Context, from *control.Peer, msg control.Message) {
	lane.CloseFDs(msg.FDs)
	if in, m := g.session(from, msg.Payload); in != nil {
		in.said(m)
	}
}

// said takes what the sender says of its end.
func (in *Inbound) said(m *wire.End) {
	kind := ring.Kind(m.Kind)
	failpoint.Hit("said/begun")
	if !m.InRing {
		in.leave(Dropped, fault.ErrPeerDead)
		in.dead() // by its own word it holds nothing
		return
	}
	if kind != ring.Detached && !in.a.opt.Shared {
		in.a.mu.Lock()
		if in.a.state == open {
			in.a.state = ended
		}
		in.a.mu.Unlock()
	}
	in.detach()
	failpoint.Hit("said/vacated")
}

func (g *Registry) forget(in *Inbound) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inbound[in.key] == in {
		delete(g.inbound, in.key)
	}
}
