package ring

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// The cursor of an end also says what its owner is doing, so that another
// goroutine can close the end without a fence on the fast path (see Quiesced).
// An owner is busy first, sees then that the end is not sealed, and only then
// lends. It touches the segment under one of the two marks alone, in slow halves
// too: the mark goes when the last word was read or written.
const (
	busy = 1 << 63 // inside a call that will end by itself
	lent = 1 << 62 // slots are in the caller's hands until it gives them back
	held = busy | lent
)

// Producer is the sending end of a ring with one producer.
//
// Who owns what: the producer alone writes the slots in [head, head+capacity)
// that are not yet committed, their commit words, the end word and its
// attention word; the consumer alone writes head. The producer keeps a copy of
// the last head it saw (as limit) and loads the shared one only when that is
// used up.
//
//	SYNC: commit  producer publishes a slot's commit word -> consumer loads it
//	SYNC: head    consumer publishes head -> producer loads it before reuse
//	SYNC: end     producer publishes the end word -> consumer loads it
//	SYNC: sleep   consumer arms its attention word -> producer loads it after a commit
//
// One goroutine at a time calls its methods, but for those that say otherwise.
type Producer struct {
	// The words of the fast path share one line.
	base  unsafe.Pointer // first slot
	mask  uint64
	pos   uint64 // next position; written by the owner, read by Quiesce
	limit uint64 // positions below it are free; 0 forces the slow path; also written by Seal
	hi    uint64 // high bits of a Data commit word
	attn  *uint64
	seen  uint64 // the consumer's attention word as last seen
	shift uint8

	ring   *Ring
	head   *uint64
	n      uint64 // slots lent, or bytes for frames that vary; 1 while nothing is lent, 0 within Commit1
	notify func(Attention)
	value  unsafe.Pointer // see Divert
	divert func() error
	peer   Attention // the consumer's attention word as last acted on
	tag    uint8
	sealed atomic.Bool
	ended  atomic.Bool
	// aborted is the kind of an end that Abort has published while slots were
	// lent; whoever gives them back publishes it again at the last position.
	aborted atomic.Uint32
	err     error
	dirty   []uint64 // a bit a slot: its first word may be stale payload
	usable  uint64   // slots
	largest int      // frame that varies, in bytes
	_       [48]byte
}

// Producer begins a session as the ring's one producer. Notify is called, in
// the producer's goroutine and never twice at once, each time the consumer's
// attention word is found changed: it must wake a consumer that sleeps.
func (r *Ring) Producer(s Session, notify func(Attention)) *Producer {
	p := &Producer{
		base: r.slots, mask: uint64(r.geo.Slots - 1), shift: r.geo.shift(),
		pos: s.Start, limit: s.Start, hi: high(s.Tag, Data), tag: s.Tag,
		attn: at64(r.base, offConsumerAttn), head: at64(r.base, offHead),
		ring: r, notify: notify, n: 1,
		usable: uint64(r.geo.usable()), largest: r.geo.MaxFrame(),
	}
	if r.remote != nil && r.remote.Head != nil {
		p.head = r.remote.Head
	}
	if r.geo.Wide() {
		p.dirty = make([]uint64, (r.geo.Slots+63)/64)
		// The memory may hold an earlier session's payload.
		for i := range p.dirty {
			p.dirty[i] = ^uint64(0)
		}
	}
	resetAttention(r.producerAttention())
	p.look()
	return p
}

func (r *Ring) producerAttention() *uint64 { return at64(r.base, offProducerAttn) }

func (p *Producer) slot(pos uint64) unsafe.Pointer {
	return unsafe.Add(p.base, (pos&p.mask)<<(p.shift&63))
}

// Position is the position of the next frame. Any goroutine may call it.
func (p *Producer) Position() uint64 { return order.Load(&p.pos) &^ held }

// Peer is the consumer's attention word as the producer last acted on it: it
// tells whether the consumer has closed or cancelled. The owner calls it.
func (p *Producer) Peer() Attention { return p.peer }

// Err is why the producer can send no more: ErrCorrupt when the consumer's
// words cannot be true, ErrClosed after Seal or when the consumer closed.
// The owner calls it.
func (p *Producer) Err() error {
	switch {
	case p.err != nil:
		return p.err
	case p.sealed.Load():
		return fmt.Errorf("%w by this side", ErrClosed)
	case p.peer.Closed():
		return fmt.Errorf("%w by the consumer", ErrClosed)
	}
	return nil
}

// enter marks the owner as busy, unless slots are held or the end is sealed.
// Leave must follow.
func (p *Producer) enter() (pos uint64, ok bool) {
	pos = p.pos
	if pos&held != 0 {
		return pos, false
	}
	order.Publish(&p.pos, pos|busy)
	if p.sealed.Load() { // pairs with Seal, as Put's load of limit does
		p.leave(pos)
		return pos, false
	}
	return pos, true
}

func (p *Producer) leave(pos uint64) { order.Publish(&p.pos, pos) }

// free loads the consumer's position and tells how many slots are free from
// pos, where the owner is busy. It answers 0 when the producer has failed, is
// sealed, or its ring is full.
func (p *Producer) free(pos uint64) uint64 {
	if p.ended.Load() || p.Err() != nil {
		return 0
	}
	head := order.Load(p.head) // SYNC: head, pairs with Consumer.publish
	if pos-head > p.usable {
		p.err = fmt.Errorf("%w: consumer's position %d, producer's %d, %d slots", ErrCorrupt, head, pos, p.usable)
		return 0
	}
	limit := head + p.usable
	old := order.Load(&p.limit)
	if limit != old {
		// Lost only to Seal, which has set 0.
		atomic.CompareAndSwapUint64(&p.limit, old, limit)
	}
	if p.sealed.Load() {
		order.Publish(&p.limit, 0)
		return 0
	}
	return limit - pos
}

// Free is how many slots are free now, after looking at the consumer's position.
func (p *Producer) Free() int {
	pos, ok := p.enter()
	if !ok {
		return 0
	}
	n := p.free(pos)
	p.leave(pos)
	return int(n)
}

// room tells whether n slots are free.
func (p *Producer) room(n uint64) bool {
	pos := p.pos
	return pos&held == 0 && (order.Load(&p.limit)-pos-n < 1<<62 || uint64(p.Free()) >= n)
}

// look reads the consumer's attention word and acts on it. It is the slow half
// of the check that follows each publication.
//
//go:noinline
func (p *Producer) look() {
	a := order.Load(p.attn) // SYNC: sleep, pairs with Consumer.Arm
	order.Publish(&p.seen, a)
	p.peer = Attention(a)
	if p.peer.Closed() {
		order.Publish(&p.limit, 0)
	}
	if p.notify != nil && p.peer&(attnMode|attnClosed) != 0 {
		p.notify(p.peer)
	}
}

// Look acts on a change of the consumer's attention word, as each publication
// does by itself.
func (p *Producer) Look() {
	if !p.sealed.Load() && order.Load(p.attn) != p.seen {
		p.look()
	}
}

// End publishes that the session ends with kind at the producer's position.
// It needs no slot, so a full ring never holds it up. Only the first end
// counts; with slots lent it does nothing and answers false. After Seal and
// once Quiesced, any goroutine may call it.
func (p *Producer) End(kind Kind) bool {
	pos := order.Load(&p.pos)
	if pos&lent != 0 || !kind.Terminal() {
		return false
	}
	if p.ended.CompareAndSwap(false, true) {
		order.Publish(&p.limit, 0)
		if failpoint.On {
			failpoint.Hit("end/begun")
		}
		p.endAt(pos&^held, kind)
		if failpoint.On {
			failpoint.Hit("end/written")
		}
		nudge(p.attn, p.notify)
	}
	return true
}

func (p *Producer) endAt(pos uint64, kind Kind) {
	order.Publish(at64(p.ring.base, offEnd), word(pos, high(p.tag, kind))) // SYNC: end, pairs with Consumer.ending
}

// Abort is End for a producer whose slots are lent: the session ends behind what
// is committed. It must be called after Seal. Any goroutine may call it; barrier
// is a process-wide memory barrier. A holder that is still at work commits what
// it has, and the end moves behind that as it gives the slots back; if it never
// does, the consumer takes the end as soon as it finds no frame behind it.
func (p *Producer) Abort(kind Kind, barrier func()) {
	if !p.ended.CompareAndSwap(false, true) {
		return
	}
	p.aborted.Store(uint32(kind))
	pos := p.Position()
	most := pos + uint64(p.ring.geo.Slots) // what is lent ends before; commits behind are the peer's lies
	for written := false; ; written = true {
		// A holder whose commit this does not see has seen aborted: its end comes
		// later than the one that this has written, if it has written any.
		barrier()
		from := pos
		for n := p.committedAt(pos); n > 0 && n <= most-pos; n = p.committedAt(pos) {
			pos += n
		}
		if written && pos == from {
			break
		}
		p.endAt(pos, kind)
	}
	if failpoint.On {
		failpoint.Hit("abort/written")
	}
	nudge(p.attn, p.notify)
}

// committedAt is how many slots the frame takes that is committed at pos, 0 for
// none.
func (p *Producer) committedAt(pos uint64) uint64 {
	slot := p.slot(pos)
	if (order.Load((*uint64)(slot))^word(pos, high(p.tag, 0)))&^(kindMask|flagMask) != 0 {
		return 0
	}
	if p.dirty == nil {
		return 1
	}
	return frameSlots(int(*(*uint64)(unsafe.Add(slot, 8))&lengthMask), p.shift)
}

// Ended tells whether the session's end was published.
func (p *Producer) Ended() bool { return p.ended.Load() }

// Seal makes every later send fail with ErrClosed. Any goroutine may call it.
func (p *Producer) Seal() {
	p.sealed.Store(true)
	atomic.StoreUint64(&p.limit, 0)
}

// Sealed tells whether Seal was called. Any goroutine may call it.
func (p *Producer) Sealed() bool { return p.sealed.Load() }

// Quiesced tells whether no call of the owner is under way and no slot is in
// its hands. Any goroutine may call it. After Seal and a process-wide barrier
// (membarrier), an answer of true is final: the owner's next call sees the
// seal before it touches the ring. (The owner stores busy and then loads
// limit; the other side stores limit, has the barrier, and loads pos.)
func (p *Producer) Quiesced() bool { return order.Load(&p.pos)&held == 0 }

// Lent tells whether slots are in the caller's hands: a reservation that was
// not committed, or a Slots loop that is running or was left by a panic.
// Any goroutine may call it.
func (p *Producer) Lent() bool { return order.Load(&p.pos)&lent != 0 }

// Arm tells the consumer that the producer is about to sleep until there is
// room; see Attention.
func (p *Producer) Arm(mode uint32) {
	arm(p.ring.producerAttention(), mode)
	p.ring.armed()
}

// Disarm tells the consumer that the producer is awake.
func (p *Producer) Disarm() { disarm(p.ring.producerAttention()) }

// Ready tells whether a producer that waits for n slots has something to do:
// there is room, or there will never be.
func (p *Producer) Ready(n int) bool {
	if p.ended.Load() || p.Err() != nil {
		return true
	}
	p.Look()
	return p.Err() != nil || p.room(uint64(n))
}

// Drained tells whether the consumer has passed every frame of the session.
// Any goroutine may call it.
func (p *Producer) Drained() bool { return order.Load(p.head) == p.Position() }
