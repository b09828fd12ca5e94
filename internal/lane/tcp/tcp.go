// Package tcp is the lane between two nodes that share nothing but a
// connection. The sender's ring is a mirror on its heap; a pump carries what is
// committed in it as active messages, and the receiver's handler writes the
// frames straight into its ring at the same positions. The receiver's consumer
// pays the slots back as credits, so what is under way never exceeds what the
// receiver's ring has room for, and its handler never waits.
//
//	sender                               receiver
//	producer -> mirror -> pump  == stream_data ==>  handler -> ring -> consumer
//	               ^                                                     |
//	               +---------------- stream_credit <=====================+
//
// A receiver that takes compression says so in its reply, if the sender's offer
// says that its build can; each of the session's messages then has one byte
// more, which tells how its frames are encoded. See package compress.
package tcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Lane implements lane.Lane and lane.Refuser.
type Lane struct {
	log     *slog.Logger
	refused atomic.Uint64

	mu    sync.Mutex
	sinks map[key]*sink // receiving
	pumps map[key]*pump // sending
}

// key is a session: the connection that it was made over, and the sender's name for
// it. A worker's id would not do: a peer may claim any.
type key struct {
	peer   *control.Peer
	outlet uint64
}

// An offer is the compress.Set of what the sender's build can do, a reply that of
// what the receiver takes; either may be missing, which is none.
//
// Data messages begin with the outlet's id; so do credits, followed by the
// consumer's position and the position behind the last frame that has arrived.
const (
	dataHeader = 8
	creditSize = 24
)

// New registers the lane's messages with the node.
func New(node *control.Node) (*Lane, error) {
	l := &Lane{log: node.Logger(), sinks: map[key]*sink{}, pumps: map[key]*pump{}}
	return l, errors.Join(
		node.HandleAMInline("stream_data", l.serveData),
		node.HandleAMInline("stream_credit", l.serveCredit),
	)
}

// Refused counts the messages that belong to no session. A credit may be late,
// and is no such message.
func (l *Lane) Refused() uint64 { return l.refused.Load() }

// Name is "tcp".
func (*Lane) Name() string { return "tcp" }

// Offer offers the lane on a connection that crosses hosts.
func (*Lane) Offer(peer *control.Peer) ([]byte, error) {
	switch {
	case peer == nil:
		return nil, errors.New("the receiver is in this process")
	case peer.Transport() != control.TCP:
		return nil, fmt.Errorf("the connection to the receiver is a Unix socket: ask for the lane by name, and let its node listen with control.WithTCP")
	}
	return []byte{byte(compress.All)}, nil
}

// set reads what an offer or a reply says.
func set(data []byte) compress.Set {
	if len(data) == 0 {
		return 0
	}
	return compress.Set(data[0])
}

// batchLimit is the most that the frames of one message may take: the last one
// begins within batch.
func batchLimit(g ring.Geometry) int { return batch + g.HeaderSize() + g.MaxFrame() }

// Close does nothing: sessions end with their ends.
func (*Lane) Close() error { return nil }

func heapRing(g ring.Geometry) (*ring.Ring, int, error) {
	seg, err := shm.NewHeap(g.SegmentSize())
	if err != nil {
		return nil, 0, err
	}
	r, err := ring.Format(seg.Bytes(), g)
	return r, len(seg.Bytes()), err
}

// Accept makes the receiver's ring and what writes into it.
func (l *Lane) Accept(req lane.Request) (*lane.End, lane.Reply, error) {
	r, size, err := heapRing(req.Geometry)
	if err != nil {
		return nil, lane.Reply{}, err
	}
	s := &sink{
		lane: l, key: key{req.Peer, req.Outlet}, peer: req.Peer, ring: r,
		session: ring.Session{Tag: 1}, bell: shm.NewLocalBell(), fail: req.Fail,
		takes: set(req.Offer) & compress.SetOf(req.Compression), limit: batchLimit(req.Geometry),
	}
	var data []byte
	if s.takes != 0 {
		data = []byte{byte(s.takes)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sinks[s.key] != nil {
		return nil, lane.Reply{}, fmt.Errorf("session %d of worker %v exists", req.Outlet, req.Peer.WorkerID())
	}
	l.sinks[s.key] = s
	return &lane.End{
		Ring: r, Session: s.session, Wake: s.credit,
		Parker: shm.NewParker(req.Wait, nil, s.bell), Bell: s.bell,
		Release: func(bool, uint64) { s.close() }, Bytes: size,
	}, lane.Reply{Session: s.session, Data: data}, nil
}

// Connect makes the sender's mirror and the pump that empties it.
func (l *Lane) Connect(req lane.Request, reply lane.Reply) (*lane.End, error) {
	lane.CloseFDs(reply.FDs)
	takes := set(reply.Data)
	if takes&^compress.All != 0 {
		return nil, fmt.Errorf("%w: the receiver takes compression %#x, which was not offered", fault.ErrCorrupt, byte(takes))
	}
	r, size, err := heapRing(req.Geometry)
	if err != nil {
		return nil, err
	}
	p := newPump(l, req, r, reply.Session)
	if takes != 0 {
		p.coded, p.algorithm = true, takes.First(req.Compression)
	}
	l.mu.Lock()
	l.pumps[p.key] = p
	l.mu.Unlock()
	go p.run()
	return &lane.End{
		Ring: r, Session: reply.Session, Wake: p.wake,
		Parker: shm.NewParker(req.Wait, nil, p.roomBell), Bell: p.roomBell,
		Flush: p.flush, Landed: p.known, Release: func(bool, uint64) { p.release() }, Bytes: size,
		Traffic: p.traffic,
	}, nil
}

func (l *Lane) serveData(_ context.Context, from *control.Peer, msg control.Message) {
	lane.CloseFDs(msg.FDs)
	b := msg.Payload
	if len(b) < dataHeader {
		l.log.Warn("malformed message refused", "message", "stream_data", "bytes", len(b))
		l.refused.Add(1)
		return
	}
	l.mu.Lock()
	s := l.sinks[key{from, binary.LittleEndian.Uint64(b)}]
	l.mu.Unlock()
	if s == nil {
		l.refused.Add(1)
		return
	}
	s.take(b[dataHeader:])
}

func (l *Lane) serveCredit(_ context.Context, from *control.Peer, msg control.Message) {
	lane.CloseFDs(msg.FDs)
	b := msg.Payload
	if len(b) != creditSize {
		l.log.Warn("malformed message refused", "message", "stream_credit", "bytes", len(b))
		l.refused.Add(1)
		return
	}
	l.mu.Lock()
	p := l.pumps[key{from, binary.LittleEndian.Uint64(b)}]
	l.mu.Unlock()
	if p != nil {
		p.credited(binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]))
	}
}
