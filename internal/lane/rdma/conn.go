package rdma

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/novastream/novastream/rdma"
)

// conn is a queue pair as the two ends of a session and the probe of a link use it:
// what is outstanding, what is done, and its one failure.
//
// mu guards it and its owner's protocol; it is held while requests are posted, which
// never waits. Completions come from the goroutine of the shard, one batch at a
// time. After shut nothing is posted, no completion reaches the owner any more, and
// nothing touches the owner's memory.
type conn struct {
	owner  owner
	shard  *shard
	serial uint32
	qp     rdma.QP
	inline uint32 // bytes that a request may carry in itself

	mu     sync.Mutex
	up     bool   // requests may be posted
	dead   bool   // failed or shut
	closed bool   // shut
	posted uint64 // requests posted
	done   uint64 // requests known to be done
	plain  int    // requests posted since the last signalled one
	failed error
	batch  [maxBatch]rdma.SendWR
	n      int // requests in batch
}

// owner is who uses a conn. All but broke are called with mu held.
type owner interface {
	// arrived is told a WRITE_WITH_IMM of the other side.
	arrived(imm uint32)
	// finished is told that requests, up to the one with this number, are done.
	finished(seq uint64)
	// flush posts what is due, as far as there is room.
	flush()
	// complete tells whether a failure does not matter any more.
	complete() bool
	// broke is told once that the queue pair has failed, in a goroutine of its own.
	// Told says that the other side knows.
	broke(err error, told bool)
}

const (
	// sendDepth is how many requests may be outstanding: two for a batch of frames.
	sendDepth = 128
	// signalEvery is after how many requests one is signalled: each wakes the shard.
	signalEvery = sendDepth / 4
	// recvDepth is how many immediates may come before the shard has looked. Each
	// side has at most three under way: what wakes a side that sleeps, which is not
	// sent again before that has been heard; what arms; and what closes. So the
	// other side never finds no receive posted.
	recvDepth = 8
	// maxBatch is how many requests are posted together at most.
	maxBatch = 4
	// maxInline is up to how many bytes a range is sent inline.
	maxInline = 256
)

// The ID of a request: the conn, and the low bits of its number; or that it is a
// receive.
const (
	idSerial = 32
	idRecv   = 1 << 31
	idMask   = idRecv - 1
)

// open makes the queue pair and posts its receives.
func (c *conn) open(l *link, o owner) error {
	c.owner = o
	s, err := l.shard()
	if err != nil {
		return err
	}
	limits := l.lane.limits
	c.inline = uint32(min(maxInline, limits.MaxInline))
	qp, err := l.dom.NewQP(rdma.QPOptions{
		SendCQ: s.cq, RecvCQ: s.cq, MaxSend: min(sendDepth, limits.MaxSend), MaxRecv: min(recvDepth, limits.MaxRecv), MaxInline: int(c.inline),
	})
	if err == nil {
		c.qp = qp
		s.add(c)
		for range recvDepth {
			if err = c.receive(); err != nil {
				c.shut()
				break
			}
		}
	} else {
		s.put()
	}
	return err
}

func (c *conn) receive() error {
	_, err := c.qp.PostRecv([]rdma.RecvWR{{ID: uint64(c.serial)<<idSerial | idRecv}})
	return err
}

// room is how many requests may be posted. The lock is held.
func (c *conn) room() int {
	if !c.up || c.dead {
		return 0
	}
	return sendDepth - int(c.posted-c.done)
}

// crowded tells whether so much is under way that completions must have come. The lock
// is held.
func (c *conn) crowded() bool { return c.up && !c.dead && c.posted-c.done > sendDepth/2 }

// add puts a request into the batch, and answers its number. The caller has seen
// that there is room. The lock is held.
func (c *conn) add(op rdma.Op, local rdma.Segment, to uint64, key, immediate uint32) (seq uint64) {
	seq = c.posted + uint64(c.n)
	wr := &c.batch[c.n]
	*wr = rdma.SendWR{
		ID: uint64(c.serial)<<idSerial | seq&idMask, Op: op, Local: local, Remote: to, RKey: key, Imm: immediate,
	}
	if local.Length <= c.inline && local.Length > 0 {
		wr.Flags |= rdma.Inline
	}
	if c.plain++; c.plain >= signalEvery {
		c.signal()
	}
	c.n++
	return seq
}

// signal makes the request in hand complete also when it succeeds.
func (c *conn) signal() {
	c.batch[c.n].Flags |= rdma.Signaled
	c.plain = 0
}

// signalLast is signal for the last request that was added.
func (c *conn) signalLast() {
	c.n--
	c.signal()
	c.n++
}

// post posts the batch in one crossing. The lock is held.
func (c *conn) post() {
	n, err := c.qp.PostSend(c.batch[:c.n])
	c.posted += uint64(n)
	c.n = 0
	if err != nil {
		c.fail(fmt.Errorf("post: %w", err), false)
	}
}

// take takes the completions of this conn.
func (c *conn) take(done []rdma.Completion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range done {
		if c.dead {
			return
		}
		d := &done[i]
		recv := d.ID&idRecv != 0
		seq := c.done + (d.ID-c.done)&idMask
		switch {
		case d.Status != rdma.Success:
			if !recv && seq > c.done {
				c.done = seq
				c.owner.finished(seq - 1)
			}
			c.fail(cause(done[i:]).Err(), false)
		case recv:
			if err := c.receive(); err != nil {
				c.fail(fmt.Errorf("post: %w", err), false)
				return
			}
			if d.Op != rdma.OpRecvWrite || !d.HasImm {
				c.fail(fmt.Errorf("%w: %v without an immediate", errProtocol, d.Op), false)
				return
			}
			c.owner.arrived(d.Imm)
		default:
			c.done = seq + 1
			c.owner.finished(seq)
		}
	}
	if !c.dead {
		c.owner.flush()
	}
}

// cause is the status that explains the others: of a queue pair that fails all
// that is outstanding is flushed.
func cause(done []rdma.Completion) rdma.Status {
	for i := range done {
		if s := done[i].Status; s != rdma.Success && s != rdma.Flushed {
			return s
		}
	}
	return rdma.Flushed
}

// errProtocol is something that no honest peer sends.
var errProtocol = errors.New("the peer breaks the lane's protocol")

// fail ends the conn for the reason err, once. The lock is held.
func (c *conn) fail(err error, told bool) {
	if c.dead {
		return
	}
	c.dead, c.failed = true, err
	quiet := c.owner.complete()
	go func() {
		_ = c.qp.Abort()
		if !quiet {
			c.owner.broke(err, told)
		}
	}()
}

// breaks is fail from elsewhere.
func (c *conn) breaks(err error, told bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err, told)
}

// shut ends the conn. When it has returned, no request of it touches any memory:
// what is outstanding was flushed.
func (c *conn) shut() {
	c.mu.Lock()
	c.dead, c.closed = true, true
	c.mu.Unlock()
	c.shard.drop(c)
	_ = c.qp.Close()
	c.shard.put()
}

var lastSerial atomic.Uint32
