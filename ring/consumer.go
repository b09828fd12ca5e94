package ring

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// Consumer is the receiving end of a ring with one producer, and the part of
// Collector that reads slots.
//
// Who owns what: the consumer alone writes head and its attention word. Slots
// in [head, pos) are its own until it publishes a new head, which it does every
// eighth of a ring and whenever it finds nothing (Settle). It believes nothing
// it reads: each word is loaded once, checked against the geometry, and what
// no honest producer writes is ErrCorrupt.
//
// One goroutine at a time calls its methods, but for those that say otherwise.
type Consumer struct {
	// The words of the fast path share one line.
	base  unsafe.Pointer // first slot
	mask  uint64
	pos   uint64 // next position, written by the owner, read by Quiesce
	limit uint64 // at this position head is due; 0 forces the slow path; also written by Seal
	hi    uint64 // high bits of a Data commit word
	shift uint8
	wide  bool
	many  bool
	multi bool // a frame of several slots was taken since the last release

	ring      *Ring
	head      *uint64
	published uint64 // head as last stored
	next      uint64 // first position that is not lent
	batch     uint64
	seen      uint64 // producers' attention word as last seen
	notify    func(Attention)
	gate      *gate // of a remote ring
	tag       uint8
	sealed    atomic.Bool
	err       error
	_         [88]byte
}

// Consumer begins a session as the ring's consumer. It must be called before
// the producer's end of the same session is made. Notify is called each time a
// new head finds the producers' attention word changed: it must wake those
// that sleep.
func (r *Ring) Consumer(s Session, notify func(Attention)) *Consumer {
	c := new(Consumer)
	c.open(r, s, notify)
	return c
}

func (c *Consumer) open(r *Ring, s Session, notify func(Attention)) {
	c.base, c.mask, c.shift = r.slots, uint64(r.geo.Slots-1), r.geo.shift()
	c.pos, c.hi, c.tag = s.Start, high(s.Tag, Data), s.Tag
	c.wide, c.many = r.geo.Wide(), r.geo.many()
	c.ring, c.head, c.notify = r, at64(r.base, offHead), notify
	c.published, c.batch = s.Start, max(uint64(r.geo.Slots)/8, 1)
	c.limit = s.Start + c.batch
	c.seen = order.Load(r.producerAttention())
	resetAttention(r.consumerAttention())
	order.Publish(c.head, s.Start)
	if r.remote != nil && r.remote.Announced != nil {
		c.gate = new(gate)
		c.limit = s.Start // nothing is announced
		c.err = c.gate.open(r.remote, s)
	}
}

func (r *Ring) consumerAttention() *uint64 { return at64(r.base, offConsumerAttn) }

func (c *Consumer) slot(pos uint64) unsafe.Pointer {
	return unsafe.Add(c.base, (pos&c.mask)<<(c.shift&63))
}

// Position is the position of the next frame. Any goroutine may call it.
func (c *Consumer) Position() uint64 { return order.Load(&c.pos) &^ held }

// Err is what was found to be corrupt, or ErrClosed after Seal.
func (c *Consumer) Err() error {
	if c.err == nil && c.sealed.Load() {
		return fmt.Errorf("%w by this side", ErrClosed)
	}
	return c.err
}

// due is the slow half of the fast path's check of limit: head is to be
// published, or nothing may be read. It tells whether reading may go on.
//
//go:noinline
func (c *Consumer) due() bool {
	return c.pass(true)
}

// pass publishes head if it is due, and tells whether the consumer may look at all,
// or at the slot at its position.
func (c *Consumer) pass(announced bool) bool {
	pos := c.pos
	if pos&held != 0 || c.err != nil || c.sealed.Load() {
		return false
	}
	order.Publish(&c.pos, pos|busy)
	ok := !c.sealed.Load() // pairs with Seal, as Get's load of limit does
	if ok && (c.gate == nil || pos-c.published >= c.batch) {
		c.publish(pos)
	}
	if ok && announced && c.gate != nil {
		ok = c.announced() > pos
	}
	order.Publish(&c.pos, pos)
	return ok && !c.sealed.Load()
}

// publish gives the slots before pos back to the producers.
func (c *Consumer) publish(pos uint64) {
	// The swap is lost only to Seal, which leaves 0 for good.
	if old := order.Load(&c.limit); old == 0 || !c.setLimit(old, pos+c.batch) {
		return
	}
	if pos == c.published {
		return
	}
	c.published = pos
	if failpoint.On {
		failpoint.Hit("head/begun")
	}
	order.Publish(c.head, pos) // SYNC: head, pairs with Producer.free
	if failpoint.On {
		failpoint.Hit("head/stored")
	}
	c.look()
}

// setLimit makes limit the position at which head is due, or the announced one if
// that comes first.
func (c *Consumer) setLimit(old, limit uint64) bool {
	if c.gate != nil {
		limit = min(limit, c.gate.upto)
	}
	return atomic.CompareAndSwapUint64(&c.limit, old, limit)
}

// look acts on a change of the producers' attention word.
func (c *Consumer) look() {
	a := order.Load(c.ring.producerAttention()) // SYNC: sleep, pairs with Producer.Arm
	if a == c.seen {
		return
	}
	c.seen = a
	if c.notify != nil && Attention(a).Mode() != 0 {
		c.notify(Attention(a))
	}
}

// Settle publishes the consumer's position, so that the producers may use every
// slot that was read. It is called when there is nothing to read, and always
// before the consumer sleeps.
func (c *Consumer) Settle() {
	if c.pos&held == 0 && !c.sealed.Load() {
		c.publish(c.pos)
		c.look()
	}
}

// Behind tells how many slots were read and not yet given back.
func (c *Consumer) Behind() int { return int(c.pos&^held - c.published) }

// Close tells the producers that nothing will be read any more, and wakes one
// that sleeps. Any goroutine may call it while the memory is valid; repeated
// calls do no harm.
func (c *Consumer) Close() { c.close(attnClosed) }

// Cancel is Close with a reason, at most MaxReason bytes of which are kept:
// the producers find both in the segment. The first reason counts; calls must
// not race with each other.
func (c *Consumer) Cancel(reason string) {
	if Attention(order.Load(c.ring.consumerAttention())).Cancelled() {
		return
	}
	reason = reason[:min(len(reason), MaxReason)]
	copy(unsafe.Slice((*byte)(unsafe.Add(c.ring.base, offReason+4)), len(reason)), reason)
	*at32(c.ring.base, offReason) = uint32(len(reason))
	if failpoint.On {
		failpoint.Hit("cancel/reason")
	}
	c.close(attnClosed | attnCancel) // SYNC: reason, pairs with Ring.Reason
}

func (c *Consumer) close(bits uint64) {
	setAttention(c.ring.consumerAttention(), 0, bits)
	if failpoint.On {
		failpoint.Hit("cancel/marked")
	}
	nudge(c.ring.producerAttention(), c.notify)
}

// Seal makes every later read find nothing. Any goroutine may call it.
func (c *Consumer) Seal() {
	c.sealed.Store(true)
	atomic.StoreUint64(&c.limit, 0)
}

// Quiesced tells whether no call of the owner is under way and nothing is lent.
// Any goroutine may call it; see Producer.Quiesced.
func (c *Consumer) Quiesced() bool { return order.Load(&c.pos)&held == 0 }

// Lent tells whether frames are in the caller's hands. Any goroutine may call
// it.
func (c *Consumer) Lent() bool { return order.Load(&c.pos)&lent != 0 }

// Arm tells the producers that the consumer is about to sleep; see Attention.
func (c *Consumer) Arm(mode uint32) {
	arm(c.ring.consumerAttention(), mode)
	c.ring.armed()
}

// Disarm tells the producers that the consumer is awake.
func (c *Consumer) Disarm() { disarm(c.ring.consumerAttention()) }

// Ready tells whether there is something to read: a frame, an end, or an error
// that Next will tell.
func (c *Consumer) Ready() bool {
	if c.err != nil || c.sealed.Load() {
		return true
	}
	pos := c.pos &^ held
	if c.gate != nil {
		if c.announced() > pos || c.err != nil {
			return true
		}
	} else if c.committed(order.Load((*uint64)(c.slot(pos))), pos) {
		return true
	}
	_, ok := c.ending(pos)
	return ok
}

// committed tells whether w commits a frame of any kind at pos in this session.
func (c *Consumer) committed(w, pos uint64) bool {
	return (w^word(pos, high(c.tag, 0)))&^(kindMask|flagMask) == 0
}

// ending reads the end word and tells whether the session ends at pos, or has
// ended before: a holder that outlives Abort may commit frames behind the end.
func (c *Consumer) ending(pos uint64) (Kind, bool) {
	switch {
	case c.many:
		return 0, false
	case c.gate != nil:
		upto := c.announced()
		return c.gate.end, c.gate.end != 0 && upto == pos
	}
	w := order.Load(at64(c.ring.base, offEnd)) // SYNC: end, pairs with Producer.End
	k := Kind(w & kindMask >> kindShift)
	return k, k.Terminal() && uint8(w>>tagShift) == c.tag && reached(pos, (w-1)&posMask)
}

// reached tells whether pos is at or behind a position known by 48 bits.
func reached(pos, at uint64) bool { return (pos-at)&posMask < 1<<(posBits-1) }
