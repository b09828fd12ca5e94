package rdma

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/shm"
)

// Lane implements lane.Lane.
type Lane struct {
	log      *slog.Logger
	provider rdma.Provider
	name     string // of the device
	absent   error  // why there is no provider
	opt      rdma.ConnectOptions
	every    time.Duration // is how often links are probed
	again    time.Duration // a peer that was not reached is not tried before

	opening sync.Mutex
	dev     rdma.Device
	shut    bool
	limits  rdma.Limits
	stop    context.CancelFunc

	mu      sync.Mutex
	links   map[*control.Peer]*link
	sinks   map[key]*sink // receiving
	pumps   map[key]*pump // sending
	arrived recent
	closing bool
	users   int // links and sessions that are not released
}

// key is a session: the connection that it was made over, and the sender's name for
// it. A worker's id would not do: a peer may claim any.
type key struct {
	peer   *control.Peer
	outlet uint64
}

// Config is what a lane is made of.
type Config struct {
	// Provider gives the device; nil makes a lane that can do nothing, because of
	// Absent.
	Provider rdma.Provider
	Absent   error
	// Device is the device's name, "" for the first that can be used. It is opened
	// when it is needed first, or by New when Now is set.
	Device string
	Now    bool
}

// New registers the lane's messages with the node. With Now it fails when the device
// cannot be had, and has then registered nothing.
func New(node *control.Node, c Config) (*Lane, error) {
	l := &Lane{
		log: node.Logger(), provider: c.Provider, name: c.Device, absent: c.Absent, opt: connectOptions, every: probeEvery, again: helloAgain,
		links: map[*control.Peer]*link{}, sinks: map[key]*sink{}, pumps: map[key]*pump{},
	}
	if c.Now {
		if _, err := l.device(); err != nil {
			return nil, unavailable(err)
		}
	}
	err := errors.Join(
		node.Handle("rdma_hello", l.serveHello),
		node.Handle("rdma_connect", l.serveConnect),
		node.Handle("rdma_failed", l.serveFailed),
		node.Handle("rdma_lost", l.serveLost),
	)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// connectOptions are the defaults; tests shorten them.
var connectOptions rdma.ConnectOptions

// Name is "rdma".
func (*Lane) Name() string { return "rdma" }

// Offer offers the lane when the two devices reach each other, which is tried once
// for each peer. Over a Unix socket shared memory is better in any case, and the
// attempt is left to Connect.
func (l *Lane) Offer(peer *control.Peer) ([]byte, error) {
	if peer == nil {
		return nil, errors.New("the receiver is in this process")
	}
	if _, err := l.device(); err != nil {
		return nil, err
	}
	if !peer.Local() {
		k, err := l.link(peer)
		if err != nil {
			return nil, err
		}
		if err := k.reach(); err != nil {
			return nil, err
		}
	}
	return newWriter().bytes([]byte(l.provider.Name())).uint(uint64(compress.All)), nil
}

// Accept makes the receiver's ring, for this sender alone.
func (l *Lane) Accept(req lane.Request) (*lane.End, lane.Reply, error) {
	r := newReader(req.Offer)
	theirs, can := string(r.bytes()), r.compressors()
	if err := r.end("offer"); err != nil {
		return nil, lane.Reply{}, err
	}
	if err := l.same(theirs); err != nil {
		return nil, lane.Reply{}, unavailable(err)
	}
	if err := l.enter(); err != nil {
		return nil, lane.Reply{}, err
	}
	s, reply, err := l.accept(req, can&compress.SetOf(req.Compression))
	if err != nil {
		l.left()
		return nil, lane.Reply{}, unavailable(err)
	}
	l.mu.Lock()
	twice := l.sinks[s.key] != nil
	if !twice {
		l.sinks[s.key] = s
	}
	l.mu.Unlock()
	if twice {
		s.close()
		l.left()
		return nil, lane.Reply{}, fmt.Errorf("session %d of worker %v exists", req.Outlet, req.Peer.WorkerID())
	}
	s.link.add(&s.session)
	return &lane.End{
		Ring: s.ring, Session: reply.Session, Wake: s.credit,
		Parker: parker(req.Wait, s.bell), Bell: s.bell,
		Halt: func() { _ = s.qp.Abort() }, Release: func(bool, uint64) { s.release() }, Bytes: s.words,
	}, reply, nil
}

// same refuses a peer that uses another provider.
func (l *Lane) same(theirs string) error {
	if _, err := l.device(); err != nil {
		return err
	}
	if mine := l.provider.Name(); mine != theirs {
		return fmt.Errorf("this node's provider is %q, the other's %q", mine, theirs)
	}
	return nil
}

// Connect makes the sender's mirror.
func (l *Lane) Connect(req lane.Request, reply lane.Reply) (*lane.End, error) {
	lane.CloseFDs(reply.FDs)
	if err := l.enter(); err != nil {
		return nil, err
	}
	p, err := l.connect(req, reply)
	if err != nil {
		l.left()
		return nil, unavailable(err)
	}
	p.link.add(&p.session)
	return &lane.End{
		Ring: p.ring, Session: reply.Session, Wake: p.wake,
		Parker: parker(req.Wait, p.roomBell), Bell: p.roomBell,
		Flush: p.waitEnd, Landed: p.known, Traffic: p.traffic, Release: func(bool, uint64) { p.release() }, Bytes: p.words,
	}, nil
}

// unavailable gives errors of the device the names that the streaming layer knows.
func unavailable(err error) error {
	switch {
	case errors.Is(err, rdma.ErrLimit):
		return fmt.Errorf("%w: %w", shm.ErrLimit, err)
	case errors.Is(err, control.ErrConnLost), errors.Is(err, fault.ErrLaneUnavailable), errors.Is(err, fault.ErrClosed), errors.Is(err, lane.ErrAnswer):
		return err
	}
	return fmt.Errorf("%w: %w", fault.ErrLaneUnavailable, err)
}

// enter counts a session that is being made.
func (l *Lane) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return errClosing
	}
	l.users++
	return nil
}

// left takes note of a session or link that was released; the last one after Close
// closes the device.
func (l *Lane) left() {
	l.mu.Lock()
	l.users--
	last := l.closing && l.users == 0
	l.mu.Unlock()
	if last {
		l.closeDevice()
	}
}

// Close closes the device as soon as nobody uses it: frames that are lent, and
// ends that are still being carried, keep it.
func (l *Lane) Close() error {
	l.mu.Lock()
	first := !l.closing
	l.closing = true
	l.users++ // this call
	links := make([]*link, 0, len(l.links))
	for _, k := range l.links {
		links = append(links, k)
	}
	l.mu.Unlock()
	for _, k := range links {
		if first {
			k.end()
		}
	}
	l.left()
	return nil
}
