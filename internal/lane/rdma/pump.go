package rdma

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// pump is the sending end: it writes what is committed in the mirror to the
// receiver's ring, and announces it. It has no goroutine of its own. One of these
// pumps, with mu held:
//
//   - the producer, when a commit finds the pump's attention word armed. A sender
//     that commits now and then sends from its own goroutine, without a hand-over.
//   - a worker, started when commits come in quick succession, which sends batches
//     while the producer goes on, until there is nothing for a while. Where ranges are
//     encoded (see encoder) it is always a worker that takes them.
//   - the shard's goroutine, when the send queue was full and has room again, and
//     for what the receiver has said.
//
// So exactly one of these holds: the attention word is armed; a worker runs; the
// send queue is full (stalled), and a completion will come; or the session is over.
//
// A batch is at most two ranges, the second behind the ring's end, and the
// announcement of both. The receiver answers with its head, which its device
// writes where the producer looks; a producer that sleeps for room sends
// roomless(head), and the sink answers as the pump answers idle (see sink). While a worker
// runs, that looks at the head and wakes the producer itself (makeRoom), and sends roomless when
// it rests.
//
// A completion means that the receiver's memory has it. Slots are used again when the
// receiver has read them, which is later.
type pump struct {
	session
	x        *ring.Exporter
	credits  rdma.Region // the page that the receiver writes to
	roomBell shm.Bell
	workers  sync.WaitGroup
	encoder  *encoder // nil: ranges go as they are

	// Guarded by conn.mu.
	sent      lane.Traffic
	running   bool // a worker runs
	stalled   bool
	over      bool   // the end was announced
	announced uint64 // the announcement that was posted last
	asleep    bool   // the consumer sleeps, having seen the position below
	idleSeen  uint32
	watched   bool   // the producer sleeps for room, and the worker is to see to it
	roomOut   bool   // a roomless was sent, or is due, and not answered
	roomDue   bool   // and it was not sent yet
	roomSeen  uint64 // the head that the producer had seen
	chunk     int
	last      time.Time // when the producer had pumped last
	streak    int       // how often in quick succession

	marks  [2 * sendDepth]uint64 // by request: the position that is known to have arrived when it is done
	pos    uint64                // the position announced last
	landed uint64
	endSeq uint64        // the request that announces the end
	gone   chan struct{} // closed when the end has arrived, or never will
	isGone bool
	hasEnd bool // the end has arrived
}

// chunk is how many bytes of frames are announced at once, but for a frame that
// is larger: the receiver reads one while the next is under way. In a ring of which
// mostChunk is no more than a quarter it is that, so that neither the announcements nor
// the last packets of ranges, which are not full, count beside frames of some ten KiB.
const (
	chunk     = 64 << 10
	mostChunk = 4 * chunk
)

const (
	// quick is the time from one commit, and what it had the pump do, to the next of a
	// producer that sends in bulk, and many how many of them start a worker.
	quick = 4 * time.Microsecond
	many  = 8
	// idleSpins is how often a worker looks in vain before it ends.
	idleSpins = 200
)

// connect makes the sending end.
func (l *Lane) connect(req lane.Request, reply lane.Reply) (_ *pump, err error) {
	r := newReader(reply.Data)
	remote, takes := r.place(), r.compressors()
	if err := r.end("the lane's part"); err != nil {
		return nil, fmt.Errorf("%w: %w", lane.ErrAnswer, err)
	}
	if takes&^compress.All != 0 {
		return nil, fmt.Errorf("%w: the receiver takes compression %#x, which was not offered", lane.ErrAnswer, byte(takes))
	}
	p := &pump{roomBell: shm.NewLocalBell(), gone: make(chan struct{})}
	p.to = toReceiver
	p.chunk = max(chunk, min(mostChunk, req.Geometry.Slots*req.Geometry.SlotSize/4))
	p.encoder = newEncoder(takes.First(req.Compression), req.Geometry)
	if err := p.make(l, req, p, 0, p.encoder.size()); err != nil {
		return nil, err
	}
	p.sent.Compression = takes.First(req.Compression)
	defer func() {
		if err != nil {
			p.forget()
			p.close()
		}
	}()
	if err := p.link.reach(); err != nil {
		return nil, err
	}
	if p.credits, err = p.link.dom.NewRegion(pageSize, rdma.RemoteWrite); err != nil {
		return nil, err
	}
	start := reply.Session.Start
	p.remote, p.pos, p.landed = remote, start, start
	head := wordAt(p.credits, offHead)
	*head = start
	p.x = p.ring.Exporter(reply.Session, func(a ring.Attention) {
		if a.Mode() != 0 {
			p.roomBell.Ring()
		}
	})
	p.ring = p.ring.Remote(ring.Remote{Head: head, Armed: p.armed})
	p.announced, _ = p.x.Announcement()
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	if err := p.qp.Connect(ctx, remote.address, p.lane.opt); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.pumps[p.key] = p // the receiver may tell of a failure before it has answered
	l.mu.Unlock()
	b := newWriter().uint(req.Outlet).place(place{p.qp.Address(), p.credits.Addr(), p.credits.RKey()})
	if _, err := req.Peer.Call(ctx, "rdma_connect", control.Message{Payload: b}); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return nil, p.failed
	}
	p.up = true
	p.x.Arm(shm.Doorbell)
	return p, nil
}

// arrived takes an immediate of the receiver.
func (p *pump) arrived(v uint32) {
	switch v >> immKind {
	case immCredit:
		p.roomOut = false
		p.roomBell.Ring()
	case immIdle:
		p.asleep, p.idleSeen = true, v&immMask
	case immClosed:
		if a := ring.Attention(load(p.credits, offState)); a.Cancelled() {
			p.x.Cancel(reason(p.credits.Bytes(), ring.MaxReason))
		} else {
			p.x.Close()
		}
	default:
		p.fail(badImmediate(v), false)
	}
}

func badImmediate(v uint32) error { return fmt.Errorf("%w: immediate %#x", errProtocol, v) }

// finished takes note of what has arrived.
func (p *pump) finished(seq uint64) {
	p.landed = max(p.landed, p.marks[seq%uint64(len(p.marks))]) // not every request has one
	if p.encoder != nil {
		p.encoder.finished(seq)
	}
	if p.endSeq != 0 && seq >= p.endSeq-1 {
		p.hasEnd = true
		p.leave()
	}
}

// leave ends what waits for the end to arrive. The lock is held.
func (p *pump) leave() {
	if !p.isGone {
		p.isGone = true
		close(p.gone)
	}
}

// known is the position up to which frames have arrived.
func (p *pump) known() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.landed
}

// traffic counts what was posted. Frames go as they lie in memory, so a Payload
// is whole slots.
func (p *pump) traffic() lane.Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.sent
	t.Frames = p.x.Frames()
	return t
}

// waitEnd waits until the session's end, and with it everything before it, is in the
// receiver's memory.
func (p *pump) waitEnd(ctx context.Context) error {
	select {
	case <-p.gone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.hasEnd:
		return nil
	case p.failed != nil:
		return fmt.Errorf("%w: %w", fault.ErrTransport, p.failed)
	}
	return control.ErrConnLost
}

func (p *pump) complete() bool { return p.hasEnd }

func (p *pump) broke(err error, told bool) {
	arrived := p.told(err, told)
	p.mu.Lock()
	defer p.mu.Unlock()
	if arrived && p.over {
		p.hasEnd, p.landed = true, p.pos
	}
	p.leave()
}

// lingerTime is how long a pump whose sender has given up may go on to carry
// what was committed before, as a closed socket does.
const lingerTime = 10 * time.Second

// release ends the session: at once when nothing is left to carry, else when the
// end that is in the mirror has arrived.
func (p *pump) release() {
	p.mu.Lock()
	linger := !p.isGone && !p.dead && p.x.HasEnd()
	p.mu.Unlock()
	if !linger {
		p.closing(p.finish)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
		defer cancel()
		stop := p.link.peer.OnClose(func(error) { cancel() })
		defer stop()
		_ = p.waitEnd(ctx)
		p.finish()
	}()
}

func (p *pump) finish() {
	p.forget()
	p.mu.Lock()
	p.dead = true
	p.leave()
	p.mu.Unlock()
	p.workers.Wait()
	p.close()
	p.lane.left()
}

// forget ends what the receiver may say of the session.
func (p *pump) forget() {
	p.lane.mu.Lock()
	defer p.lane.mu.Unlock()
	if p.lane.pumps[p.key] == p {
		delete(p.lane.pumps, p.key)
	}
}

// close is session.close, and for the page of credits too.
func (p *pump) close() {
	p.session.close()
	if p.credits != nil {
		_ = p.credits.Close()
	}
}
