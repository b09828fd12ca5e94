package ring

import (
	"iter"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// Put copies *v into the next slot and publishes it. When it cannot, *v and the
// ring are untouched and it answers ErrFull, ErrClosed or ErrCorrupt, or what
// Divert has arranged. T must be free of pointers and exactly the ring's payload.
//
// The item is copied word by word: a copy by wider moves of fields just
// written by narrower ones cannot be forwarded from the store buffer and waits
// until that has drained, behind every line in flight.
func Put[T any](p *Producer, v *T) error {
	_ = *v // a nil v must fault here, not with the slot held
	pos := p.pos
	order.Publish(&p.pos, pos|busy)
	if pos >= order.Load(&p.limit) {
		order.Publish(&p.pos, pos)
		return putSlow(p, v)
	}
	if failpoint.On {
		failpoint.Hit("put/begun")
	}
	slot := slotAt(p.base, pos, p.mask, p.shift)
	if d, s := unsafe.Add(slot, narrowHeader), unsafe.Pointer(v); byWords(v) {
		copyFirst(d, s, v)
		copySecond(d, s, v)
		copyRest(d, s, v)
	} else {
		*(*T)(d) = *v
	}
	if failpoint.On {
		failpoint.Hit("put/written")
	}
	order.Publish((*uint64)(slot), word(pos, p.hi)) // SYNC: commit, pairs with Get
	if failpoint.On {
		failpoint.Hit("put/published")
	}
	if order.Load(p.attn) != p.seen {
		p.look()
	}
	order.Publish(&p.pos, pos+1)
	return nil
}

//go:noinline
func putSlow[T any](p *Producer, v *T) error {
	if pos, ok := p.enter(); ok {
		n := p.free(pos)
		p.leave(pos)
		if n > 0 {
			return Put(p, v)
		}
	}
	if p.divert == nil {
		return p.refusal()
	}
	*(*T)(p.value) = *v
	err := p.divert()
	*(*T)(p.value) = *new(T)
	return err
}

// Divert has Put, when it cannot put a value, copy it to *value for as long as fn
// runs, and answer what fn answers: a caller that is more than a ring is then
// reached by one call, and the value that is sent need not lie on the heap. Every
// Put of the producer must be of the same T.
func Divert[T any](p *Producer, value *T, fn func() error) {
	p.value, p.divert = unsafe.Pointer(value), fn
}

// Slots yields free slots in place, up to max, each the caller's during its
// body and published as the body ends; a break gives the last one back. It
// yields none when there is no room or the producer can send no more. The
// ring's one cursor store is made after the loop, so the frames of a loop cost
// what a plain loop over the slots costs. A body that panics leaves the
// producer lent (see Lent).
func Slots[T any](p *Producer, max int) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		pos, end := p.begin(max)
		base, mask, shift, hi, attn := p.base, p.mask, p.shift&63, p.hi, p.attn
		// No call stands in the inner loop: values that live across one would be
		// stored to the stack for each frame, and a store to another line between
		// two frames keeps the store buffer from merging those of one line.
		for again := true; again; {
			again = false
			seen := p.seen
			for pos != end {
				slot := slotAt(base, pos, mask, shift)
				if !yield((*T)(unsafe.Add(slot, narrowHeader))) {
					break
				}
				if failpoint.On {
					failpoint.Hit("slots/written")
				}
				order.Publish((*uint64)(slot), word(pos, hi)) // SYNC: commit
				if failpoint.On {
					failpoint.Hit("slots/published")
				}
				pos++
				if order.Load(attn) != seen {
					again = true
					break
				}
			}
			if again {
				p.look()
			}
		}
		p.done(pos)
	}
}

// begin lends up to max slots.
//
//go:noinline
func (p *Producer) begin(max int) (pos, end uint64) {
	pos, ok := p.enter()
	if !ok {
		return pos, pos
	}
	limit := order.Load(&p.limit)
	if limit-pos-1 >= 1<<62 && p.free(pos) > 0 {
		limit = order.Load(&p.limit)
	}
	if max <= 0 || limit-pos-1 >= 1<<62 {
		p.leave(pos)
		return pos, pos
	}
	p.n = looping
	order.Publish(&p.pos, pos|lent)
	return pos, pos + min(uint64(max), limit-pos)
}

// looping is n while a Slots loop has the slots: no commit may touch them.
const looping = 1 << 62

// done takes back what begin lent: the frames before pos are published.
//
//go:noinline
func (p *Producer) done(pos uint64) {
	// A begin that found slots lent already has answered a marked position.
	if p.pos&lent != 0 && pos&held == 0 {
		p.give(pos)
	}
}

// give takes back what was lent, up to pos committed. The segment is not touched
// after it.
func (p *Producer) give(pos uint64) {
	if p.sealed.Load() && p.aborted.Load() != 0 {
		p.endAt(pos, Kind(p.aborted.Load()))
		nudge(p.attn, p.notify)
	}
	p.n = 1
	order.Publish(&p.pos, pos)
}

// Lend reserves up to max free slots and answers how many it got: 0 when there
// is no room, or when the producer can send no more. The slots, reached with At, are the caller's until Publish.
func (p *Producer) Lend(max int) int {
	pos, end := p.begin(max)
	if pos == end {
		return 0
	}
	p.n = end - pos
	return int(p.n)
}

// At is the payload of the i-th reserved slot. It must be below what Lend
// answered.
func At[T any](p *Producer, i int) *T {
	return (*T)(unsafe.Add(slotAt(p.base, p.pos+uint64(i), p.mask, p.shift), narrowHeader))
}

// Publish commits the first n reserved slots, so that the consumer sees all of
// them or none, and gives the others back. It answers false when nothing was
// reserved.
func (p *Producer) Publish(n int) bool {
	pos := p.pos &^ held
	if p.pos&lent == 0 || n < 0 || uint64(n) > p.n || p.n == looping {
		return false
	}
	// The first slot's word is what the consumer looks for: it goes last.
	base, mask, shift, hi := p.base, p.mask, p.shift&63, p.hi
	for at := pos + uint64(n); at != pos; {
		at--
		if failpoint.On && at == pos {
			failpoint.Hit("batch/all-but-first")
		}
		order.Publish((*uint64)(unsafe.Add(base, (at&mask)<<shift)), word(at, hi)) // SYNC: commit
	}
	if order.Load(p.attn) != p.seen {
		p.look()
	}
	p.give(pos + uint64(n))
	return true
}

// Claim lends the next slot, to be published by Commit1; nil when there is none.
// It is small enough to be inlined where it is used.
func Claim[T any](p *Producer) *T {
	pos := p.pos
	order.Publish(&p.pos, pos|lent)
	if pos >= order.Load(&p.limit) {
		order.Publish(&p.pos, pos)
		return nil
	}
	return (*T)(unsafe.Add(slotAt(p.base, pos, p.mask, p.shift), narrowHeader))
}

// Reserve1 is Claim that looks for room first: nil when there is none.
func Reserve1[T any](p *Producer) *T {
	if v := Claim[T](p); v != nil {
		return v
	}
	if p.Lend(1) == 0 {
		return nil
	}
	return At[T](p, 0)
}

// Commit1 publishes the one slot that Claim or Reserve1 lent. When it answers
// false, Settle1 must follow.
func Commit1[T any](p *Producer, v *T) bool {
	pos, ok := Store1(p, v)
	return ok && Give1(p, v, pos)
}

// Store1 and Give1 are the halves of Commit1, each small enough to be inlined
// where it is used: Store1 publishes the slot and answers its position, Give1
// takes it back.
func Store1[T any](p *Producer, _ *T) (pos uint64, ok bool) {
	pos = p.pos &^ lent
	if p.pos == pos || p.n != 1 {
		return pos, false
	}
	order.Publish((*uint64)(slotAt(p.base, pos, p.mask, p.shift)), word(pos, p.hi)) // SYNC: commit
	if failpoint.On {
		failpoint.Hit("commit/published")
	}
	return pos, true
}

// Give1 is the second half of Commit1.
func Give1[T any](p *Producer, _ *T, pos uint64) bool {
	if order.Load(p.attn) != p.seen || order.Load(&p.limit) == 0 {
		p.n = 0
		return false
	}
	order.Publish(&p.pos, pos+1)
	return true
}

// Settle1 does what Commit1 has left to do: it acts on the consumer's attention
// word and gives the slot back. It answers false when no single slot was lent.
//
//go:noinline
func (p *Producer) Settle1() bool {
	pos := p.pos &^ lent
	if p.pos == pos || p.n != 0 {
		return false
	}
	if order.Load(p.attn) != p.seen {
		p.look()
	}
	p.give(pos + 1)
	return true
}
