// Package shm is the lane between two processes of one host: a ring in a sealed
// memfd, which the receiver makes and passes with its answer to the attach,
// and a pipe for each side to be woken by.
//
// Segments are prepared ahead, and used again between the same two nodes once
// both have released them, which the sender says with its next attach: such an
// attach passes no descriptor and maps nothing.
package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Lane implements lane.Lane and lane.Sharer.
type Lane struct {
	log  *slog.Logger
	pool *shm.Pool

	mu    sync.Mutex
	next  uint64
	pairs map[*control.Peer]*pair

	discards discards
}

// What is kept: prepared segments of a size, in bytes in all; and released ones
// of a pair of nodes.
const (
	preparedPerSize = 4
	preparedBytes   = 64 << 20
	keptPerPair     = 32
	keptBytes       = 64 << 20
)

// New makes the lane.
func New(log *slog.Logger) *Lane {
	return &Lane{log: log, pool: shm.NewPool(preparedPerSize, preparedBytes), pairs: map[*control.Peer]*pair{}}
}

// Name is "shm".
func (*Lane) Name() string { return "shm" }

// kit is a segment with its two bells, as one side has it.
type kit struct {
	id           uint64 // given by the receiver, unique in the pair
	seg          shm.Segment
	ring         *ring.Ring
	consumerBell shm.Bell
	producerBell shm.Bell
	geo          ring.Geometry
	next         uint64 // position at which the next session starts
	tag          uint8
	sessions     uint64 // that this side has had on it
	huge         bool   // was asked for, and how much was obtained
	hugeBytes    int
}

func (k *kit) close() {
	k.seg.Close()
	k.consumerBell.Close()
	k.producerBell.Close()
}

// pair is what is kept for the sessions to come between this node and one peer.
type pair struct {
	receiving map[uint64]*kit // released by this side, as receiver
	sending   map[uint64]*kit // released by this side, as sender
	bytes     int
	closed    bool
}

// pair finds the peer's, whose end closes what it keeps.
func (l *Lane) pair(peer *control.Peer) *pair {
	l.mu.Lock()
	p := l.pairs[peer]
	if p == nil {
		p = &pair{receiving: map[uint64]*kit{}, sending: map[uint64]*kit{}}
		l.pairs[peer] = p
		l.mu.Unlock()
		peer.OnClose(func(error) { l.drop(peer) })
		return p
	}
	l.mu.Unlock()
	return p
}

func (l *Lane) drop(peer *control.Peer) {
	l.mu.Lock()
	p := l.pairs[peer]
	delete(l.pairs, peer)
	var kits []*kit
	if p != nil {
		p.closed = true
		for _, k := range p.receiving {
			kits = append(kits, k)
		}
		for _, k := range p.sending {
			kits = append(kits, k)
		}
		clear(p.receiving)
		clear(p.sending)
	}
	l.mu.Unlock()
	for _, k := range kits {
		l.discards.add(k)
	}
}

// Close releases what is kept.
func (l *Lane) Close() error {
	l.mu.Lock()
	peers := make([]*control.Peer, 0, len(l.pairs))
	for p := range l.pairs {
		peers = append(peers, p)
	}
	l.mu.Unlock()
	for _, p := range peers {
		l.drop(p)
	}
	l.discards.settle()
	return l.pool.Close()
}

// keep puts a kit aside for a later session; it answers false when there is no
// place for it.
func (l *Lane) keep(p *pair, kits map[uint64]*kit, k *kit) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := len(k.seg.Bytes())
	// The ids of a receiver that gives one twice may not hide a segment.
	if p.closed || kits[k.id] != nil || len(kits) >= keptPerPair || p.bytes+size > keptBytes {
		return false
	}
	kits[k.id] = k
	p.bytes += size
	return true
}

// release is an offered segment: its id, and how many sessions it has had. The
// number tells an offer that was overtaken: since it was made, another attach has
// used the segment, and the sender may not have released that session yet.
type release struct{ id, sessions uint64 }

// Offer offers the lane on a Unix socket, with the segments that this side has
// released.
func (l *Lane) Offer(peer *control.Peer) ([]byte, error) {
	switch {
	case peer == nil:
		return nil, errors.New("the receiver is in this process")
	case !peer.Local():
		return nil, errors.New("the receiver is not reached by a Unix socket: shared memory needs one host, and nodes that listen without WithoutUnix")
	}
	p := l.pair(peer)
	l.mu.Lock()
	defer l.mu.Unlock()
	var b []byte
	for id, k := range p.sending {
		if b = (release{id, k.sessions}).append(b); len(b) > 64 {
			break
		}
	}
	return b, nil
}

func (r release) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, r.id), r.sessions)
}

// offered reads an offer, which is of kept segments.
func offered(b []byte) (all []release) {
	for len(b) > 0 && len(all) < keptPerPair {
		var r release
		for _, v := range []*uint64{&r.id, &r.sessions} {
			x, n := binary.Uvarint(b)
			if n <= 0 {
				return all
			}
			*v, b = x, b[n:]
		}
		all = append(all, r)
	}
	return all
}

// Accept finds a segment that both sides have released, or makes one.
func (l *Lane) Accept(req lane.Request) (*lane.End, lane.Reply, error) {
	if !req.Peer.Local() {
		return nil, lane.Reply{}, errors.New("the sender is on another host")
	}
	p := l.pair(req.Peer)
	k, again := l.again(p, req), true
	if k == nil {
		var err error
		if k, err = l.make(req.Geometry, req.HugePages); err != nil {
			return nil, lane.Reply{}, err
		}
		again = false
	} else {
		failpoint.Hit("accept/again")
	}
	k.tag++
	k.sessions++
	s := ring.Session{Start: k.next, Tag: k.tag}
	end := receiving(k, s, req.Wait)
	end.Release = func(clean bool, next uint64) {
		k.next = next
		failpoint.Hit("accept/released")
		if !clean || !l.keep(p, p.receiving, k) {
			l.discards.add(k)
		}
	}
	reply := lane.Reply{Session: s, Data: binary.AppendUvarint(nil, k.id)}
	if !again {
		var err error
		if reply.FDs, err = descriptors(k.seg, k.consumerBell, k.producerBell); err != nil {
			k.close()
			return nil, lane.Reply{}, err
		}
	}
	return end, reply, nil
}

// again takes a kept segment of the wanted geometry that the sender has
// released too.
func (l *Lane) again(p *pair, req lane.Request) *kit {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range offered(req.Offer) {
		if k := p.receiving[r.id]; k != nil && k.geo == req.Geometry && k.sessions == r.sessions && k.huge == req.HugePages {
			delete(p.receiving, r.id)
			p.bytes -= len(k.seg.Bytes())
			return k
		}
	}
	return nil
}

// make makes a kit. At a limit it first has what is being given back.
func (l *Lane) make(g ring.Geometry, huge bool) (*kit, error) {
	k, err := l.makeNow(g, huge)
	if errors.Is(err, shm.ErrLimit) && l.discards.settle() {
		return l.makeNow(g, huge)
	}
	return k, err
}

func (l *Lane) makeNow(g ring.Geometry, huge bool) (*kit, error) {
	if g.Producers == 0 {
		g.Producers = 1
	}
	shm.Register()
	seg, got, err := l.segment(g.SegmentSize(), huge)
	if err != nil {
		return nil, err
	}
	k := &kit{seg: seg, geo: g, huge: huge, hugeBytes: got}
	failpoint.Hit("accept/segment")
	if k.ring, err = ring.Format(seg.Bytes(), g); err == nil {
		if k.consumerBell, err = shm.NewBell(); err == nil {
			if k.producerBell, err = shm.NewBell(); err != nil {
				k.consumerBell.Close()
			}
		}
	}
	if err != nil {
		seg.Close()
		return nil, err
	}
	failpoint.Hit("accept/bells")
	l.mu.Lock()
	l.next++
	k.id = l.next
	l.mu.Unlock()
	return k, nil
}

// segment takes a prepared segment, or makes one in huge pages and tells how much
// of it is.
func (l *Lane) segment(size int, huge bool) (shm.Segment, int, error) {
	if !huge {
		seg, _, err := l.pool.Get(size)
		return seg, 0, err
	}
	seg, err := shm.NewHuge(size)
	if err != nil {
		return nil, 0, err
	}
	got, err := shm.HugeBytes(seg)
	switch {
	case err != nil:
		l.log.Warn("huge pages: what was obtained is unknown", "bytes", size, "error", err)
	case got == 0:
		l.log.Warn("huge pages were asked for and not obtained", "bytes", size, "remedy", shm.HugeRemedy(size))
	}
	return seg, int(got), nil
}

func receiving(k *kit, s ring.Session, wait shm.Strategy) *lane.End {
	return &lane.End{
		Ring: k.ring, Session: s,
		Wake:   waker(k.ring.ProducerWake(), k.producerBell),
		Parker: shm.NewParker(wait, k.ring.ConsumerWake(), k.consumerBell),
		Bell:   k.consumerBell,
		Bytes:  len(k.seg.Bytes()), HugeBytes: k.hugeBytes,
	}
}

func waker(word *uint32, bell shm.Bell) func(ring.Attention) {
	w := shm.NewWaker(word, bell)
	return func(a ring.Attention) { w.Wake(a.Mode()) }
}

// Connect maps the segment that the receiver has passed, or takes the one that
// it names.
func (l *Lane) Connect(req lane.Request, reply lane.Reply) (*lane.End, error) {
	id, n := binary.Uvarint(reply.Data)
	if n <= 0 {
		lane.CloseFDs(reply.FDs)
		return nil, fmt.Errorf("%w: it names no segment", lane.ErrAnswer)
	}
	p := l.pair(req.Peer)
	k, err := l.open(p, id, req.Geometry, reply)
	if err != nil && req.Peer.Err() != nil {
		return nil, req.Peer.Err() // what was kept has gone with the connection
	}
	if err != nil {
		return nil, err
	}
	k.sessions++
	end := &lane.End{
		Ring: k.ring, Session: reply.Session, Record: reply.Record, Gen: reply.Generation,
		Wake:   waker(k.ring.ConsumerWake(), k.consumerBell),
		Parker: shm.NewParker(req.Wait, k.ring.ProducerWake(), k.producerBell),
		Bell:   k.producerBell,
		Bytes:  len(k.seg.Bytes()),
	}
	end.Release = func(clean bool, _ uint64) {
		failpoint.Hit("connect/released")
		if !clean || reply.Record > 0 || !l.keep(p, p.sending, k) {
			l.discards.add(k)
		}
	}
	return end, nil
}

func (l *Lane) open(p *pair, id uint64, g ring.Geometry, reply lane.Reply) (*kit, error) {
	if len(reply.FDs) == 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		k := p.sending[id]
		if k == nil || k.geo != g {
			return nil, fmt.Errorf("%w: it names segment %d, which this side has not released", lane.ErrAnswer, id)
		}
		delete(p.sending, id)
		p.bytes -= len(k.seg.Bytes())
		failpoint.Hit("connect/again")
		return k, nil
	}
	if len(reply.FDs) != 3 {
		lane.CloseFDs(reply.FDs)
		return nil, fmt.Errorf("%w: it has %d descriptors, want 3", lane.ErrAnswer, len(reply.FDs))
	}
	shm.Register()
	return openKit(id, g, reply.FDs)
}

// openKit makes a kit of a peer's descriptors, which it owns in every case.
func openKit(id uint64, g ring.Geometry, fds []int) (k *kit, err error) {
	k = &kit{id: id, geo: g}
	failpoint.Hit("connect/descriptors")
	k.seg, err = shm.OpenMemfd(fds[0], g.SegmentSize(), ring.SenderReadOnly)
	if err != nil {
		lane.CloseFDs(fds[1:])
		return nil, err
	}
	failpoint.Hit("connect/mapped")
	if k.ring, err = ring.Open(k.seg.Bytes()); err != nil {
		lane.CloseFDs(fds[1:])
		k.seg.Close()
		return nil, err
	}
	if got := k.ring.Geometry(); got != g {
		lane.CloseFDs(fds[1:])
		k.seg.Close()
		return nil, fmt.Errorf("%w: the segment's geometry is %+v, the answer said %+v", lane.ErrAnswer, got, g)
	}
	if k.consumerBell, err = shm.OpenBell(fds[1]); err != nil {
		lane.CloseFDs(fds[2:])
		k.seg.Close()
		return nil, err
	}
	if k.producerBell, err = shm.OpenBell(fds[2]); err != nil {
		k.consumerBell.Close()
		k.seg.Close()
		return nil, err
	}
	return k, nil
}
