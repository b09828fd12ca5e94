package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Attach makes an outlet to the stream that h names.
func (g *Registry) Attach(ctx context.Context, h handle.Handle, opt AttachOptions) (*Outlet, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	if err := g.isClosing(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("attach to %v: %w", h, context.Cause(ctx))
	}
	for _, name := range opt.Lanes {
		if g.lane(name) == nil {
			return nil, fmt.Errorf("%w: this build has no lane %q: it has %v", fault.ErrLaneUnavailable, name, g.laneNames())
		}
	}
	o := &Outlet{reg: g, id: g.nextOutlet.Add(1), h: h, done: make(chan struct{}), unflush: func() {}}
	if h.Worker() != uint64(g.node.WorkerID()) {
		peer, err := g.peer(ctx, h, opt)
		if err != nil {
			return nil, err
		}
		o.peer = peer
	}
	err := o.attach(ctx, opt)
	if errors.Is(err, fault.ErrLaneUnavailable) && o.peer != nil && o.peer.Local() && crosses(opt.Lanes) {
		// What both sides have may need the other connection.
		if peer, e := g.node.Peer(ctx, o.peer.WorkerID(), control.TCP); e == nil {
			o.peer = peer
			err = o.attach(ctx, opt)
		}
	}
	if err != nil {
		g.mu.Lock()
		delete(g.outlets, o.id)
		g.mu.Unlock()
		if o.peer != nil && o.peer.Err() != nil && !errors.Is(err, fault.ErrPeerDead) {
			err = fmt.Errorf("%w: %w", fault.ErrPeerDead, err) // whatever failed first
		}
		return nil, fmt.Errorf("attach to %v: %w", h, limit(err))
	}
	return o, nil
}

// peer connects to the node that has the stream, by what the wanted lanes need.
func (g *Registry) peer(ctx context.Context, h handle.Handle, opt AttachOptions) (*control.Peer, error) {
	id := control.WorkerID(h.Worker())
	var over []control.Transport
	if opt.Lanes != nil && !allowed(opt.Lanes, "shm") && !allowed(opt.Lanes, "rdma") && crosses(opt.Lanes) {
		over = []control.Transport{control.TCP}
	}
	peer, err := g.node.Peer(ctx, id, over...)
	if errors.Is(err, control.ErrUnknownPeer) {
		return nil, fmt.Errorf("attach to %v: %w: %w", h, fault.ErrNoSuchStream, err)
	}
	if err != nil && over != nil {
		return nil, fmt.Errorf("attach to %v: %w: lanes %v need a TCP connection to worker %v: %w", h, fault.ErrLaneUnavailable, opt.Lanes, id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to %v: %w", h, err)
	}
	return peer, nil
}

// crosses tells whether one of the lanes may be used that do not need one host.
func crosses(lanes []string) bool {
	for _, l := range lanes {
		if l != "local" && l != "shm" {
			return true
		}
	}
	return lanes == nil
}

func (o *Outlet) attach(ctx context.Context, opt AttachOptions) error {
	req := &wire.AttachRequest{
		Handle: o.h[:], Outlet: o.id, Codec: opt.Payload.Codec,
		Payload: uint32(opt.Payload.Size), Fingerprint: opt.Payload.Fingerprint,
	}
	var refused error
	for _, l := range o.reg.lanes {
		if !allowed(opt.Lanes, l.Name()) {
			continue
		}
		data, err := l.Offer(o.peer)
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("lane %s: %w", l.Name(), err))
			continue
		}
		req.Offers = append(req.Offers, &wire.Offer{Lane: l.Name(), Data: data})
	}
	if len(req.Offers) == 0 {
		return fmt.Errorf("%w: %w", fault.ErrLaneUnavailable, refused)
	}
	// Before the request: the receiver may cancel as soon as it has it.
	o.reg.mu.Lock()
	o.reg.outlets[o.id] = o
	o.reg.mu.Unlock()
	failpoint.Hit("attach/offered")
	reply, l, err := o.request(ctx, req)
	if err != nil {
		if refused != nil && errors.Is(err, fault.ErrLaneUnavailable) {
			err = fmt.Errorf("%w (not offered: %w)", err, refused)
		}
		return err
	}
	failpoint.Hit("attach/answered")
	if err := o.connect(opt, reply, l); err != nil {
		_ = o.say(context.Background(), ring.Dropped, false, false)
		return err
	}
	failpoint.Hit("attach/connected")
	return nil
}

// request asks the receiver, in this process or in another.
func (o *Outlet) request(ctx context.Context, req *wire.AttachRequest) (*wire.AttachReply, lane.Reply, error) {
	if o.peer == nil {
		reply, l, err := o.reg.accept(nil, req)
		if err == nil {
			o.reg.mu.Lock()
			o.local = o.reg.inbound[inKey{outlet: o.id}]
			o.reg.mu.Unlock()
		}
		if err == nil && o.local == nil {
			err = fmt.Errorf("%w: the receiver has closed the stream", fault.ErrClosed)
		}
		return reply, l, err
	}
	b, err := proto.Marshal(req)
	if err != nil {
		return nil, lane.Reply{}, err
	}
	msg, err := o.peer.Call(ctx, "stream_attach", control.Message{Payload: b})
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, control.ErrLimit) {
			// The receiver may have accepted all the same.
			_ = o.say(context.Background(), ring.Dropped, false, false)
		}
		return nil, lane.Reply{}, o.peerLost(remoteReason(err))
	}
	reply := new(wire.AttachReply)
	if err := proto.Unmarshal(msg.Payload, reply); err != nil {
		lane.CloseFDs(msg.FDs)
		return nil, lane.Reply{}, fmt.Errorf("%w: answer to stream_attach: %w", fault.ErrCorrupt, err)
	}
	return reply, lane.Reply{
		Session: ring.Session{Start: reply.Start, Tag: uint8(reply.Tag)}, Data: reply.Data, FDs: msg.FDs,
		Record: int(reply.Record), Generation: reply.Generation,
	}, nil
}

// remoteReason gives a cancellation that another process has told its reason
// back, which travels in the text.
func remoteReason(err error) error {
	var c *fault.CancelError
	if !errors.Is(err, fault.ErrCancelled) || errors.As(err, &c) {
		return err
	}
	_, why, _ := strings.Cut(err.Error(), fault.ErrCancelled.Error()+": ")
	return &cancelledError{err, &fault.CancelError{Reason: why}}
}

// cancelledError reads as the other side has said it.
type cancelledError struct {
	error
	why *fault.CancelError
}

func (e *cancelledError) Unwrap() []error { return []error{e.error, e.why} }

// connect makes the sending end.
func (o *Outlet) connect(opt AttachOptions, reply *wire.AttachReply, lr lane.Reply) error {
	l := o.reg.lane(reply.Lane)
	if l == nil || !allowed(opt.Lanes, reply.Lane) {
		lane.CloseFDs(lr.FDs)
		return fmt.Errorf("%w: the receiver chose lane %q, which was not offered", fault.ErrCorrupt, reply.Lane)
	}
	geo := ring.Geometry{
		SlotSize: int(reply.SlotSize), Slots: int(reply.Slots), Producers: int(reply.Producers),
		Payload: opt.Payload.Size, Fingerprint: opt.Payload.Fingerprint,
	}
	if err := geo.Validate(); err != nil {
		lane.CloseFDs(lr.FDs)
		return fmt.Errorf("%w: answer to stream_attach: %w", fault.ErrCorrupt, err)
	}
	end, err := l.Connect(lane.Request{
		Peer: o.peer, Outlet: o.id, Geometry: geo, Wait: opt.Wait, Compression: opt.Compression,
		Fail: func(err error) { o.fail(fmt.Errorf("%w: %w", fault.ErrTransport, err)) },
	}, lr)
	if err != nil {
		return fmt.Errorf("lane %s: %w", reply.Lane, corrupt(limit(err)))
	}
	if got := end.Ring.Geometry(); got != geo {
		end.Close(false, 0)
		return fmt.Errorf("%w: the segment's geometry is %+v, the answer said %+v", fault.ErrCorrupt, got, geo)
	}
	if lr.Record > 0 {
		c, err := end.Ring.Claimer(end.Session, lr.Record, lr.Generation, end.Wake)
		if err != nil {
			end.Close(false, 0)
			if errors.Is(err, ring.ErrRevoked) {
				return o.givenUp(err)
			}
			return fmt.Errorf("%w: answer to stream_attach: %w", fault.ErrCorrupt, err)
		}
		o.C = c
	} else {
		o.P = end.Ring.Producer(end.Session, end.Wake)
	}
	o.lane, o.sender, o.geo = reply.Lane, reply.Sender, geo
	o.mu.Lock()
	o.end = end
	err = o.err
	o.mu.Unlock()
	if err == nil && o.peer != nil {
		o.stop = o.peer.OnClose(func(error) { o.fail(fault.ErrPeerDead) })
		err = o.Err()
	}
	if err != nil {
		o.retire(false) // it was ended before it began
	}
	return err
}

// givenUp is why a sender may not join that the receiver has given up: what it was
// told, or the end of the connection, which this side may not have noticed yet.
func (o *Outlet) givenUp(err error) error {
	if told := o.Err(); told != nil {
		return told
	}
	return fmt.Errorf("%w: the receiver has given this attach up: %w", fault.ErrPeerDead, err)
}

func (g *Registry) lane(name string) lane.Lane {
	for _, l := range g.lanes {
		if l.Name() == name {
			return l
		}
	}
	return nil
}

func (g *Registry) laneNames() (names []string) {
	for _, l := range g.lanes {
		names = append(names, l.Name())
	}
	return names
}

// limit gives a limit of the system its own name.
func limit(err error) error {
	if errors.Is(err, shm.ErrLimit) || errors.Is(err, control.ErrLimit) {
		return fmt.Errorf("%w: %w", fault.ErrLimit, err)
	}
	return err
}

// corrupt gives an answer that no receiver of this library makes its name.
func corrupt(err error) error {
	for _, e := range []error{lane.ErrAnswer, ring.ErrLayout, ring.ErrGeometry, shm.ErrNotSealed, shm.ErrWrongSize, shm.ErrNotBell} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: the receiver's memory is refused: %w: run the same version on both sides", fault.ErrCorrupt, err)
		}
	}
	return err
}

func (g *Registry) serveCancel(_ context.Context, from *control.Peer, msg control.Message) {
	lane.CloseFDs(msg.FDs)
	var m wire.Cancel
	if err := proto.Unmarshal(msg.Payload, &m); err != nil {
		g.log.Warn("malformed message refused", "message", "stream_cancel", "error", err)
		g.refused.Add(1)
		return
	}
	o := g.outlet(m.Outlet)
	if o == nil || o.peer == nil || o.peer != from {
		g.refused.Add(1)
		return
	}
	o.told(&m)
}
