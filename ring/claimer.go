package ring

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// Claimer is one sending end of a ring with several producers.
//
// Who owns what: a position belongs to whoever moved the tail over it by
// compare-and-swap, from that swap to the commit word. Before the swap a claimer
// writes to its own record what it is about to claim, and whose claim it saw as
// the last one (the tail carries that), so that the consumer can tell after a
// death whose the open positions are (see Collector.recover). A claimer has at
// most one claim open, and knows whether there is room before it claims, so
// ErrFull leaves nothing behind.
//
//	SYNC: join    the collector writes a record, then offers it -> the claimer joins, then writes it
//	SYNC: claim   claimer swaps the tail -> next claimer loads it
//	SYNC: intent  claimer writes its record, then swaps -> the consumer reads the record of a dead claimer
//	SYNC: commit, head, end, sleep: as in Producer
//
// One goroutine at a time calls its methods, but for those that say otherwise.
type Claimer struct {
	ring   *Ring
	record unsafe.Pointer
	tail   *uint64
	head   *uint64
	attn   *uint64
	who    uint64 // record and generation, as in the second header word
	me     uint64
	tag    uint8
	gen    uint8

	last   uint64 // consumer's position as last seen
	state  uint64 // 0, busy or lent: the open claim
	pos    uint64 // the open claim
	slots  uint64
	n      uint64
	prev   uint64
	after  uint64 // position after its last frame
	seen   uint64
	peer   Attention
	notify func(Attention)
	sealed atomic.Bool
	ended  atomic.Bool
	err    error
}

// Claimer joins a ring with several producers through the given record, from 1
// to the geometry's Producers, which the collector has admitted with the same
// generation. It answers ErrRevoked when the collector has expelled it before
// that, and ErrCorrupt when none has admitted it: then nothing was written. Notify is as in Producer.
func (r *Ring) Claimer(s Session, record int, generation uint32, notify func(Attention)) (*Claimer, error) {
	if !r.geo.many() || record < 1 || record > r.geo.Producers {
		return nil, fmt.Errorf("%w: record %d of %d producers", ErrGeometry, record, r.geo.Producers)
	}
	rec := r.recordAt(record)
	if err := join((*uint64)(unsafe.Add(rec, recJoin)), generation); err != nil {
		return nil, fmt.Errorf("%w: record %d", err, record)
	}
	c := &Claimer{
		ring: r, record: rec, tail: at64(r.base, offTail), head: at64(r.base, offHead),
		attn: at64(r.base, offConsumerAttn), me: uint64(record),
		who: uint64(record)<<recordShift | uint64(generation)<<genShift, tag: s.Tag, gen: uint8(generation),
		notify: notify,
	}
	c.last = order.Load(c.head)
	c.after = c.extend(order.Load(c.tail))
	c.look()
	return c, nil
}

// join takes the collector's offer of a record.
func join(word *uint64, generation uint32) error {
	if failpoint.On {
		failpoint.Hit("join/begun")
	}
	// SYNC: join, pairs with Collector.Admit and Collector.revoke
	if !atomic.CompareAndSwapUint64(word, joinWord(joinOffered, generation), joinWord(joinJoined, generation)) {
		w := atomic.LoadUint64(word)
		state, gen := w&(1<<joinGenShift-1), uint32(w>>joinGenShift)
		if state == joinRevoked || gen != generation && (state == joinOffered || state == joinJoined) {
			return ErrRevoked
		}
		return fmt.Errorf("%w: join word %#x", ErrCorrupt, w)
	}
	if failpoint.On {
		failpoint.Hit("join/joined")
	}
	return nil
}

func (r *Ring) recordAt(i int) unsafe.Pointer {
	return unsafe.Add(r.base, offRecords+i*recordSize)
}

// extend makes a position of the 48 bits that the tail carries. The tail is
// less than a ring ahead of the last head seen, or has been overtaken by it.
func (c *Claimer) extend(tail uint64) uint64 {
	d := (tail - c.last) & posMask
	if d >= 1<<(posBits-1) {
		return c.last - (1<<posBits - d)
	}
	return c.last + d
}

// maxLost is how many claims in a row may be lost to others before the ring counts
// as full for now: so many lose only to a peer that writes the tail without claiming.
const maxLost = 1 << 16

// claim takes n adjacent slots. It answers ErrFull without having claimed.
func (c *Claimer) claim(n uint64) error {
	size := uint64(c.ring.geo.Slots)
	for range maxLost {
		if err := c.Err(); err != nil {
			return err
		}
		t := order.Load(c.tail) // SYNC: claim
		pos := c.extend(t)
		if int64(c.last-pos) > 0 { // a head that was loaded before the tail
			c.err = fmt.Errorf("%w: consumer's position %d, tail %d", ErrCorrupt, c.last, pos)
			return c.err
		}
		left := size - pos&(size-1)
		k := min(n, left)
		if pos+k-c.last > size {
			head := order.Load(c.head) // SYNC: head, pairs with Consumer.publish
			if int64(head-pos) > 0 {
				c.last = head
				continue // the tail just read is old
			}
			if pos-head > size {
				c.err = fmt.Errorf("%w: consumer's position %d, tail %d, %d slots", ErrCorrupt, head, pos, size)
				return c.err
			}
			if c.last = head; pos+k-head > size {
				return ErrFull
			}
		}
		prev := t >> tailRecordShift & recordMask
		if failpoint.On {
			failpoint.Hit("claim/begun")
		}
		// SYNC: intent. Info first: a reader believes it only beside the position.
		order.Publish((*uint64)(unsafe.Add(c.record, recIntentInfo)), k|prev<<32)
		if failpoint.On {
			failpoint.Hit("claim/info")
		}
		order.Publish((*uint64)(unsafe.Add(c.record, recIntentPos)), pos+1)
		if failpoint.On {
			failpoint.Hit("claim/intent")
		}
		if !atomic.CompareAndSwapUint64(c.tail, t, (pos+k)&posMask|c.me<<tailRecordShift) {
			continue
		}
		c.pos, c.slots, c.prev = pos, k, prev
		if k == n {
			if failpoint.On {
				failpoint.Hit("claim/won")
			}
			return nil
		}
		if failpoint.On {
			failpoint.Hit("claim/won-the-rest")
		}
		c.commit(pos, int(k)<<c.ring.geo.shift()-wideHeader, Pad)
		if failpoint.On {
			failpoint.Hit("claim/padded")
		}
	}
	return ErrFull
}

// Reserve claims room for a frame of n bytes and lends it until Commit or
// Abandon; see Producer.Reserve for the errors.
func (c *Claimer) Reserve(n int) ([]byte, error) {
	geo := &c.ring.geo
	if n < 0 || n > geo.MaxFrame() {
		return nil, fmt.Errorf("%w: %d bytes, largest %d", ErrTooLarge, n, geo.MaxFrame())
	}
	if c.state != 0 {
		return nil, fmt.Errorf("%w: a reservation is open: commit it first", ErrMisuse)
	}
	order.Publish(&c.state, busy)
	// Pairs with Seal, as Put does with limit.
	if c.sealed.Load() || c.ended.Load() {
		order.Publish(&c.state, 0)
		return nil, fmt.Errorf("%w by this side", ErrClosed)
	}
	if err := c.claim(frameSlots(n, geo.shift())); err != nil {
		order.Publish(&c.state, 0)
		return nil, err
	}
	c.n = uint64(n)
	order.Publish(&c.state, lent)
	return unsafe.Slice((*byte)(unsafe.Add(c.ring.slot(c.pos), wideHeader)), n), nil
}

// Commit publishes the first n bytes of the reservation as a frame of the given
// kind; slots that it does not need become a Pad frame.
func (c *Claimer) Commit(n int, kind Kind) error {
	if order.Load(&c.state) != lent {
		return fmt.Errorf("%w: nothing is reserved", ErrMisuse)
	}
	if n < 0 || uint64(n) > c.n {
		return fmt.Errorf("%w: commit of %d bytes of %d reserved", ErrMisuse, n, c.n)
	}
	shift := c.ring.geo.shift()
	if !atomic.CompareAndSwapUint64(&c.state, lent, busy) {
		return fmt.Errorf("%w: the reservation was given up", ErrMisuse)
	}
	if used := frameSlots(n, shift); used < c.slots {
		// No claim has ended there: the name of one would be taken for a proof.
		c.commitAfter(c.pos+used, int(c.slots-used)<<shift-wideHeader, Pad, 0)
		if failpoint.On {
			failpoint.Hit("claimer/rest-padded")
		}
	}
	c.commit(c.pos, n, kind)
	c.after = c.pos + c.slots
	c.finish()
	return nil
}

// Abandon gives the reservation back: its slots become a Pad frame. After Seal
// any goroutine may call it; the holder must not write to the slots any more,
// and its Commit fails.
func (c *Claimer) Abandon() {
	if !atomic.CompareAndSwapUint64(&c.state, lent, busy) {
		return
	}
	c.commit(c.pos, int(c.slots)<<c.ring.geo.shift()-wideHeader, Pad)
	if failpoint.On {
		failpoint.Hit("claimer/abandoned")
	}
	c.finish()
}

// finish is the end of each call; the segment is not touched after it.
func (c *Claimer) finish() {
	c.Look()
	order.Publish(&c.state, 0)
}

func (c *Claimer) commit(pos uint64, n int, kind Kind) { c.commitAfter(pos, n, kind, c.prev) }

// commitAfter commits a frame at a position where prev's claim was seen to end.
func (c *Claimer) commitAfter(pos uint64, n int, kind Kind, prev uint64) {
	slot := c.ring.slot(pos)
	*(*uint64)(unsafe.Add(slot, 8)) = uint64(n) | c.who | prev<<prevShift
	if failpoint.On {
		failpoint.Hit("claimer/header")
	}
	order.Publish((*uint64)(slot), word(pos, high(c.tag, kind))) // SYNC: commit, pairs with Consumer.peek
	if failpoint.On {
		failpoint.Hit("claimer/committed")
	}
}

// PutShared copies *v into a slot of its own and publishes it. It answers
// ErrFull, ErrClosed or ErrCorrupt; *v is then untouched.
func PutShared[T any](c *Claimer, v *T) error {
	_ = *v
	if c.state != 0 {
		return fmt.Errorf("%w: a reservation is open: commit it first", ErrMisuse)
	}
	order.Publish(&c.state, busy)
	if c.sealed.Load() || c.ended.Load() {
		order.Publish(&c.state, 0)
		return fmt.Errorf("%w by this side", ErrClosed)
	}
	if err := c.claim(1); err != nil {
		order.Publish(&c.state, 0)
		return err
	}
	*(*T)(unsafe.Add(c.ring.slot(c.pos), wideHeader)) = *v
	if failpoint.On {
		failpoint.Hit("claimer/written")
	}
	c.commit(c.pos, int(unsafe.Sizeof(*v)), Data)
	c.after = c.pos + 1
	c.finish()
	return nil
}

// SoftError publishes text, at most 1 KiB or a frame of it, as an error that
// does not end the stream.
func (c *Claimer) SoftError(text string) error {
	geo := &c.ring.geo
	most := geo.MaxFrame()
	if geo.Payload != 0 {
		most = geo.SlotSize - wideHeader
	}
	text = text[:min(len(text), maxText, most)]
	if c.state != 0 {
		return fmt.Errorf("%w: a reservation is open: commit it first", ErrMisuse)
	}
	order.Publish(&c.state, busy)
	if c.sealed.Load() || c.ended.Load() {
		order.Publish(&c.state, 0)
		return fmt.Errorf("%w by this side", ErrClosed)
	}
	if err := c.claim(frameSlots(len(text), geo.shift())); err != nil {
		order.Publish(&c.state, 0)
		return err
	}
	c.n = uint64(len(text))
	order.Publish(&c.state, lent)
	copy(unsafe.Slice((*byte)(unsafe.Add(c.ring.slot(c.pos), wideHeader)), len(text)), text)
	return c.Commit(len(text), SoftError)
}

// End publishes that this sender ends with kind after its last frame. It needs
// no slot. Only the first end counts; with a claim open it does nothing and
// answers false.
func (c *Claimer) End(kind Kind) bool {
	if order.Load(&c.state) == lent || !kind.Terminal() {
		return false
	}
	if c.ended.CompareAndSwap(false, true) {
		if failpoint.On {
			failpoint.Hit("claimer/end-begun")
		}
		order.Publish((*uint64)(unsafe.Add(c.record, recEnd)), word(c.after, high(c.gen, kind))) // SYNC: end
		if failpoint.On {
			failpoint.Hit("claimer/end-written")
		}
		atomic.AddUint64(at64(c.ring.base, offEnds), 1)
		if failpoint.On {
			failpoint.Hit("claimer/end-counted")
		}
		nudge(c.attn, c.notify)
	}
	return true
}

// Peer is the consumer's attention word as last acted on; see Producer.Peer.
func (c *Claimer) Peer() Attention { return c.peer }

// Err is why the claimer can send no more; see Producer.Err.
func (c *Claimer) Err() error {
	switch {
	case c.err != nil:
		return c.err
	case c.sealed.Load():
		return fmt.Errorf("%w by this side", ErrClosed)
	case c.peer.Closed():
		return fmt.Errorf("%w by the consumer", ErrClosed)
	}
	return nil
}

//go:noinline
func (c *Claimer) look() {
	a := order.Load(c.attn) // SYNC: sleep, pairs with Consumer.Arm
	c.seen = a
	c.peer = Attention(a)
	if c.notify != nil && c.peer&(attnMode|attnClosed) != 0 {
		c.notify(c.peer)
	}
}

// Look acts on a change of the consumer's attention word.
func (c *Claimer) Look() {
	if !c.sealed.Load() && order.Load(c.attn) != c.seen {
		c.look()
	}
}

// Seal makes every later send fail with ErrClosed. Any goroutine may call it.
func (c *Claimer) Seal() { c.sealed.Store(true) }

// Quiesced tells whether no call of the owner is under way and no claim is
// open. Any goroutine may call it; see Producer.Quiesced.
func (c *Claimer) Quiesced() bool { return order.Load(&c.state) == 0 }

// Lent tells whether a reservation is open. Any goroutine may call it.
func (c *Claimer) Lent() bool { return order.Load(&c.state) == lent }

// Arm tells the consumer that this producer is about to sleep until there is
// room. The producers of a ring share one attention word, so modes are only
// ever added to it, and whoever wakes wakes all of them, in each way it holds.
func (c *Claimer) Arm(mode uint32) {
	setAttention(c.ring.producerAttention(), 0, uint64(mode)&attnMode)
}

// Disarm does nothing: other producers may sleep still. Each arms again before
// it sleeps again, so the consumer sees a change for each.
func (c *Claimer) Disarm() {}

// Ready tells whether a claimer that waits for room for n bytes has something
// to do: there is room, or there will never be.
func (c *Claimer) Ready(n int) bool {
	if c.ended.Load() || c.Err() != nil {
		return true
	}
	c.Look()
	if c.Err() != nil {
		return true
	}
	head := order.Load(c.head)
	if int64(head-c.last) > 0 {
		c.last = head
	}
	pos := c.extend(order.Load(c.tail))
	size := uint64(c.ring.geo.Slots)
	need := min(frameSlots(n, c.ring.geo.shift()), size-pos&(size-1))
	return int64(head-pos) > 0 || pos+need-head <= size
}
