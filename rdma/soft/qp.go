package soft

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/rdma"
)

// qp is a queue pair. It has two halves that know nothing of each other: the
// requester (requester.go), whose goroutine run executes the send queue, and the
// responder (responder.go), which whoever brings the peer's requests calls.
//
// Positions in the send queue only grow, and are the sequence numbers on the wire:
//
//	free <= acked <= sent <= tail <= free + MaxSend
//
//	[free, acked)  done; the completion that frees the places was not polled yet
//	[acked, sent)  transmitted; sent goes back to acked when some must be again
//	[sent, tail)   posted
//
// mu guards all that is below it and is never held during a transfer. serveMu is
// held while a request of the peer is executed. In Error run ends the transfers
// under way, and only then flushes: so who has polled the last completion has
// its memory back.
type qp struct {
	dom       *domain
	dev       *Device
	scq, rcq  *cq
	num       uint32
	token     id
	maxInline int
	sendFree  atomic.Uint64 // set by Poll
	recvFree  atomic.Uint64 // added to by Poll
	kick      chan struct{} // a token when run has something to look at
	ctx       context.Context
	cancel    context.CancelFunc
	stopped   chan struct{} // closed when run has flushed
	serveMu   sync.Mutex

	mu     sync.Mutex
	state  rdma.State
	closed bool
	opt    rdma.ConnectOptions
	remote address

	sq           []sendEntry
	inline       []byte // maxInline bytes for each place
	acked, sent  uint64
	tail         uint64
	high         uint64      // behind all that was ever transmitted
	failure      rdma.Status // of the request at acked, when state is Error
	flushed      bool        // what is posted from now on is flushed at once
	link         link        // nil: not connected
	linkAcked    uint64      // acked when link was made
	linkSince    time.Time
	reads        int       // READs in [acked, sent)
	retries      int       // since the last progress
	rnrRetries   int       // the same
	deadline     time.Time // when what was lost is to be sent again; zero: nothing was
	lost         uint64    // the last request that was, when deadline is set
	notBefore    time.Time // nothing is transmitted before
	delayed      uint64    // behind the last request that was delayed by a fault
	disturbed    bool      // a fault has lost something
	rng          *rand.Rand
	rq           []rdma.RecvWR
	rhead, rtail uint64
	recvFailure  rdma.Status // of the receive at rhead, when state is Error
	expected     uint64      // the sequence number that the peer is to send next
	nakked       bool        // the peer knows that it is
	refusal      reply       // what put the queue pair into Error, for the peer
	serving      *served     // the peer's connection
}

// sendEntry is a place of the send queue.
type sendEntry struct {
	wr   rdma.SendWR
	deaf bool // a fault has the answer to its last transmission lost
}

func (m *domain) NewQP(opt rdma.QPOptions) (rdma.QP, error) {
	l := m.dev.limits()
	for _, n := range []struct {
		name           string
		v, least, most int
	}{{"MaxSend", opt.MaxSend, 1, l.MaxSend}, {"MaxRecv", opt.MaxRecv, 1, l.MaxRecv}, {"MaxInline", opt.MaxInline, 0, l.MaxInline}} {
		if n.v < n.least || n.v > n.most {
			return nil, fmt.Errorf("%w: %s %d: from %d to %d on %s", rdma.ErrLimit, n.name, n.v, n.least, n.most, m.dev.name())
		}
	}
	scq, ok1 := opt.SendCQ.(*cq)
	rcq, ok2 := opt.RecvCQ.(*cq)
	if !ok1 || !ok2 || scq.dom != m || rcq.dom != m {
		return nil, fmt.Errorf("%w: SendCQ and RecvCQ must be completion queues of the same domain", rdma.ErrOption)
	}
	q := &qp{
		dom: m, dev: m.dev, scq: scq, rcq: rcq, token: newID(), maxInline: opt.MaxInline,
		kick: make(chan struct{}, 1), stopped: make(chan struct{}), state: rdma.Init,
		sq: make([]sendEntry, opt.MaxSend), inline: make([]byte, opt.MaxSend*opt.MaxInline), rq: make([]rdma.RecvWR, opt.MaxRecv),
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(); err != nil {
		return nil, err
	}
	if !m.cqs[scq] || !m.cqs[rcq] {
		return nil, fmt.Errorf("completion queue: %w", rdma.ErrClosed)
	}
	if err := m.dev.number(q, l.MaxQPs); err != nil {
		return nil, err
	}
	q.rng = rand.New(rand.NewPCG(m.dev.cfg.seed, uint64(q.num)))
	m.qps[q] = true
	go q.run()
	return q, nil
}

// number gives a queue pair its number: 24 bits, as in verbs.
func (d *Device) number(q *qp, most int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.qps) >= most {
		return fmt.Errorf("%w: %s has %d queue pairs and no more", rdma.ErrLimit, d.info.Name, most)
	}
	for d.lastQP == 0 || d.qps[d.lastQP] != nil {
		d.lastQP = (d.lastQP + 1) & (1<<24 - 1)
	}
	q.num = d.lastQP
	d.qps[q.num] = q
	return nil
}

func (q *qp) Num() uint32 { return q.num }

func (q *qp) Address() []byte {
	return address{mtu: q.dev.Info().MTU, num: q.num, dev: q.dev.id, qp: q.token, hostPort: q.dev.addr}.append(nil)
}

func (q *qp) Connect(ctx context.Context, remote []byte, opt rdma.ConnectOptions) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	a, err := parseAddress(remote)
	if err != nil {
		return err
	}
	if opt, err = opt.Normalize(); err != nil {
		return err
	}
	info := q.dev.Info()
	if info.Port != rdma.PortActive {
		return fmt.Errorf("%w: %s is %v", rdma.ErrPort, info.Name, info.Port)
	}
	if opt.MTU == 0 && a.mtu != info.MTU || opt.MTU > info.MTU || opt.MTU > a.mtu {
		return fmt.Errorf("%w: %s has %d, the peer %d: give both sides' ConnectOptions an MTU that both have", rdma.ErrMTU, info.Name, info.MTU, a.mtu)
	}
	if _, inProcess := q.dev.local(a.dev); !inProcess {
		if err := q.dev.cfg.checkTCP(a.hostPort, q.dev.cfg.client != nil); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return q.closedError()
	case q.state != rdma.Init:
		return fmt.Errorf("%w: Connect in %v", rdma.ErrState, q.state)
	}
	q.opt, q.remote, q.state = opt, a, rdma.RTS
	return nil
}

// local is the device of this process that has the id, when queue pairs are to
// reach it without TCP.
func (d *Device) local(i id) (*Device, bool) {
	if d.cfg.overTCP {
		return nil, false
	}
	v, ok := here.Load(i)
	if !ok {
		return nil, false
	}
	return v.(*Device), true
}

func (q *qp) State() rdma.State {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state
}

func (q *qp) closedError() error { return fmt.Errorf("queue pair %d: %w", q.num, rdma.ErrClosed) }

func (q *qp) Abort() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return q.closedError()
	}
	q.fail(rdma.Flushed)
	return nil
}

func (q *qp) Close() error {
	q.mu.Lock()
	q.closed = true
	q.fail(rdma.Flushed)
	q.mu.Unlock()
	<-q.stopped
	q.dev.mu.Lock()
	if q.dev.qps[q.num] == q {
		delete(q.dev.qps, q.num)
	}
	q.dev.mu.Unlock()
	q.dom.forgetQP(q)
	return nil
}

// fail takes the queue pair to Error; s is how the request at acked ends. The lock
// is held. All else is run's.
func (q *qp) fail(s rdma.Status) {
	if q.state == rdma.Error {
		return
	}
	q.state, q.failure = rdma.Error, s
	q.cancel()
	if q.link != nil {
		q.link.interrupt()
	}
	if q.serving != nil {
		q.serving.interrupt()
	}
	q.rouse()
}

// rouse makes run look.
func (q *qp) rouse() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// flush completes everything that is queued. The lock is held, the state is Error
// and no transfer is under way.
func (q *qp) flush() {
	for ; q.acked < q.tail; q.acked++ {
		q.completeSend(q.acked, q.failure)
		q.failure = rdma.Flushed
	}
	q.sent = q.tail
	for ; q.rhead < q.rtail; q.rhead++ {
		s := q.recvFailure
		if s == rdma.Success {
			s = rdma.Flushed
		}
		q.rcq.push(entry{c: rdma.Completion{ID: q.recvAt(q.rhead).ID, QP: q.num, Status: s}, q: q, recv: true})
		q.recvFailure = rdma.Flushed
	}
	q.flushed = true
}
