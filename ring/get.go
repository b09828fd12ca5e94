package ring

import (
	"iter"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// Peek1, Holds1 and Pass1 are Get in pieces, each small enough to be inlined where
// it is used. Peek1 marks the owner as busy and answers the place of the next
// frame's payload and its position, nil when Get has more to do first; Holds1
// tells whether a Data frame lies there; Pass1 must follow, with the position of
// the frame after it, or its own when it was not taken. For T, see Get.
func Peek1[T any](c *Consumer) (v *T, pos uint64) {
	pos = c.pos
	order.Publish(&c.pos, pos|busy)
	if pos >= order.Load(&c.limit) {
		order.Publish(&c.pos, pos)
		return nil, pos
	}
	return (*T)(unsafe.Add(slotAt(c.base, pos, c.mask, c.shift), narrowHeader)), pos
}

// Holds1 is the second piece of Get; see Peek1.
func Holds1[T any](c *Consumer, v *T, pos uint64) bool {
	return order.Load((*uint64)(unsafe.Add(unsafe.Pointer(v), -narrowHeader))) == word(pos, c.hi) // SYNC: commit, pairs with Put
}

// Pass1 is the last piece of Get; see Peek1.
func Pass1[T any](c *Consumer, _ *T, next uint64) { order.Publish(&c.pos, next) }

// Get copies the next frame's payload to *v, releases its slot and answers its
// position. It answers false when the next thing is not a Data frame: there is nothing, or Next
// tells what there is. T must be the ring's payload, and the ring must have one
// producer.
func Get[T any](c *Consumer, v *T) (pos uint64, ok bool) {
	pos = c.pos
	order.Publish(&c.pos, pos|busy)
	if pos >= order.Load(&c.limit) {
		order.Publish(&c.pos, pos)
		return getSlow(c, v)
	}
	slot := slotAt(c.base, pos, c.mask, c.shift)
	if order.Load((*uint64)(slot)) != word(pos, c.hi) { // SYNC: commit, pairs with Put
		order.Publish(&c.pos, pos)
		return pos, false
	}
	if failpoint.On {
		failpoint.Hit("get/found")
	}
	// Wide moves: the slot was written by another core, and whoever copies *v
	// next does so by wide moves too.
	*v = *(*T)(unsafe.Add(slot, narrowHeader))
	order.Publish(&c.pos, pos+1)
	return pos, true
}

//go:noinline
func getSlow[T any](c *Consumer, v *T) (pos uint64, ok bool) {
	if !c.due() {
		return 0, false
	}
	return Get(c, v)
}

// Each yields the committed Data frames in place, up to max, each the caller's
// during its body and released as the body ends (also by a break). It ends at
// the first thing that is not a Data frame. T must be the ring's payload, and
// the ring must have one producer. A body that panics leaves its frame lent.
func Each[T any](c *Consumer, max int) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		pos, end := c.begin(max)
		base, mask, shift, hi := c.base, c.mask, c.shift&63, c.hi
		due := c.published + c.batch
		// No call stands in the inner loop, for the reason given in Slots.
		for {
			stop := pos + min(end-pos, due-pos)
			for pos != stop {
				slot := slotAt(base, pos, mask, shift)
				if order.Load((*uint64)(slot)) != word(pos, hi) { // SYNC: commit
					break
				}
				pos++
				if !yield((*T)(unsafe.Add(slot, narrowHeader))) {
					end = pos
					break
				}
			}
			if pos != due {
				break
			}
			if due = c.gave(pos); pos == end {
				break
			}
		}
		c.done(pos)
	}
}

//go:noinline
func (c *Consumer) begin(max int) (pos, end uint64) {
	pos = c.pos
	if pos&held != 0 || max <= 0 {
		return pos, pos
	}
	if pos >= order.Load(&c.limit) && !c.due() {
		return pos, pos
	}
	order.Publish(&c.pos, pos|busy)
	if order.Load(&c.limit) == 0 { // sealed meanwhile
		order.Publish(&c.pos, pos)
		return pos, pos
	}
	order.Publish(&c.pos, pos|lent)
	end = pos + uint64(max)
	if c.gate != nil {
		upto := c.announced()
		if end = min(end, upto); pos < upto {
			c.expand(pos, upto) // else what lies there is no frame, as Next will tell
		}
	}
	return pos, end
}

//go:noinline
func (c *Consumer) gave(pos uint64) (due uint64) {
	c.publish(pos)
	return pos + c.batch
}

//go:noinline
func (c *Consumer) done(pos uint64) {
	// A begin that found frames lent already has answered a marked position.
	if c.pos&lent != 0 && pos&held == 0 {
		order.Publish(&c.pos, pos)
	}
}

// Lend counts the committed Data frames from the next on, up to max, and lends
// them: At reaches them until Release. It answers 0 when the next thing is not
// a Data frame. The ring must have fixed payloads and one producer.
func (c *Consumer) Lend(max int) int {
	pos, end := c.begin(max)
	if pos == end {
		return 0
	}
	at := pos
	for at != end && order.Load((*uint64)(c.slot(at))) == word(at, c.hi) { // SYNC: commit
		at++
	}
	if at == pos {
		c.done(pos)
		return 0
	}
	c.next = at
	return int(at - pos)
}

// LentAt is the payload of the i-th frame that Lend lent.
func LentAt[T any](c *Consumer, i int) *T {
	return (*T)(unsafe.Add(slotAt(c.base, c.pos+uint64(i), c.mask, c.shift), narrowHeader))
}

// Release gives back everything that Lend or Take lent.
func (c *Consumer) Release() {
	if c.pos&lent == 0 {
		return
	}
	if c.many && c.multi {
		c.clear(c.pos&^held, c.next)
		c.multi = false
		if failpoint.On {
			failpoint.Hit("release/cleared")
		}
	}
	if c.next-c.published >= c.batch {
		c.publish(c.next)
	}
	order.Publish(&c.pos, c.next) // the segment is not touched after it
}
