package ring

import (
	"fmt"
	"unsafe"

	"github.com/novastream/novastream/internal/order"
)

// Frame is one frame as it lies in the ring.
type Frame struct {
	Kind Kind
	// More tells that the message goes on in the next frame.
	More bool
	// Record and Generation tell the sender in a ring with several producers.
	Record     int
	Generation uint16
	// Data is the payload, in the ring itself: the peer can still change it,
	// and it is the caller's until the frame is released.
	Data []byte

	slots uint64
}

// Next takes the next frame of any kind but Pad and Heartbeat, which it passes
// over, and lends it until Release; frames taken before it stay lent. At the
// end of a session it answers a frame of a terminal kind without data, again
// and again. The answer is false when there is nothing to read, or an error
// (Err), and also after a whole ring of frames that were passed over: a peer that
// keeps pace could keep the call for ever. With several producers, see Collector.
func (c *Consumer) Next() (Frame, bool) {
	for passed := uint64(0); passed <= c.mask; {
		pos, ok := c.take()
		if !ok {
			return Frame{}, false
		}
		f, ok := c.fresh(pos)
		if !ok {
			kind, end := c.ending(pos)
			c.untake()
			return Frame{Kind: kind}, end && c.err == nil
		}
		c.next = pos + f.slots
		if f.Kind == Pad || f.Kind == Heartbeat {
			passed += f.slots
			if c.pos&^held == pos {
				c.Release()
			}
			continue
		}
		return f, true
	}
	return Frame{}, false
}

// NextData is Next where the next frame is a Data frame: anything else it leaves,
// and answers false.
func (c *Consumer) NextData() ([]byte, bool) {
	pos, ok := c.take()
	if !ok {
		return nil, false
	}
	// What is most often there is read at once, and the rest is for fresh to judge.
	if slot := c.slot(pos); c.wide && c.gate == nil && order.Load((*uint64)(slot)) == word(pos, c.hi) { // SYNC: commit
		n := int(*(*uint64)(unsafe.Add(slot, 8)) & lengthMask)
		if slots := frameSlots(n, c.shift); slots <= c.mask+1-pos&c.mask && pos-c.published <= c.mask && !c.many {
			c.next = pos + slots
			return unsafe.Slice((*byte)(unsafe.Add(slot, wideHeader)), n), true
		}
	}
	f, ok := c.fresh(pos)
	if !ok || f.Kind != Data {
		c.untake()
		return nil, false
	}
	c.next = pos + f.slots
	return f.Data, true
}

// take marks the consumer as holding frames and answers the next position.
func (c *Consumer) take() (uint64, bool) {
	pos := c.pos
	if pos&lent != 0 {
		return c.next, !c.sealed.Load() && c.err == nil
	}
	if pos >= order.Load(&c.limit) && !c.pass(false) {
		return 0, false
	}
	order.Publish(&c.pos, pos|busy)
	if order.Load(&c.limit) == 0 {
		order.Publish(&c.pos, pos)
		return 0, false
	}
	order.Publish(&c.pos, pos|lent)
	c.next = pos
	return pos, true
}

// untake undoes a take that took nothing.
func (c *Consumer) untake() {
	if pos := c.pos &^ held; c.next == pos {
		order.Publish(&c.pos, pos)
	}
}

// fresh is peek for one whose own are the slots from published on: who keeps what
// it takes could otherwise be led round the ring without end.
func (c *Consumer) fresh(pos uint64) (Frame, bool) {
	f, ok := c.peek(pos)
	if ok && pos-c.published > c.mask {
		c.corrupt(pos, "the ring is free up to %d", c.published+c.mask+1)
		return Frame{}, false
	}
	return f, ok
}

// peek reads the frame at pos, if there is one. It sets err at a frame that
// cannot be.
func (c *Consumer) peek(pos uint64) (Frame, bool) {
	if c.gate != nil {
		if upto := c.announced(); upto <= pos || !c.expand(pos, upto) {
			return Frame{}, false
		}
	}
	slot := c.slot(pos)
	w := order.Load((*uint64)(slot)) // SYNC: commit
	if !c.committed(w, pos) {
		if c.gate != nil {
			c.corrupt(pos, "announced, but its commit word is %#x", w)
		}
		return Frame{}, false
	}
	f := Frame{Kind: Kind(w & kindMask >> kindShift), More: w&flagMore != 0, slots: 1}
	if f.Kind.Terminal() || f.Kind > Pad || f.Kind == 0 {
		c.corrupt(pos, "kind %d", f.Kind)
		return Frame{}, false
	}
	if !c.wide {
		return c.peekNarrow(f, slot, pos)
	}
	geo := &c.ring.geo
	h := *(*uint64)(unsafe.Add(slot, 8))
	n := int(h & lengthMask)
	f.Record, f.Generation = int(h>>recordShift&recordMask), uint16(h>>genShift)
	f.slots = frameSlots(n, c.shift)
	if room := uint64(geo.Slots) - pos&c.mask; f.slots > room {
		c.corrupt(pos, "length %d with %d slots to the end of the ring", n, room)
		return Frame{}, false
	}
	if geo.Payload != 0 && f.Kind == Data && n != geo.Payload {
		c.corrupt(pos, "length %d in a ring of %d-byte payloads", n, geo.Payload)
		return Frame{}, false
	}
	f.Data = unsafe.Slice((*byte)(unsafe.Add(slot, wideHeader)), n)
	return f, true
}

// peekNarrow reads the rest of a frame in a ring of one-word headers: the
// payload has the ring's size, but for messages cut into slots, whose pieces
// begin with their length in one byte.
func (c *Consumer) peekNarrow(f Frame, slot unsafe.Pointer, pos uint64) (Frame, bool) {
	data := unsafe.Add(slot, narrowHeader)
	switch f.Kind {
	case Data:
		f.Data = unsafe.Slice((*byte)(data), c.ring.geo.Payload)
	case SoftError:
		n := int(*(*uint8)(data))
		if n > c.ring.geo.SlotSize-narrowHeader-1 {
			c.corrupt(pos, "piece of %d bytes in a slot of %d", n, c.ring.geo.SlotSize)
			return Frame{}, false
		}
		f.Data = unsafe.Slice((*byte)(unsafe.Add(data, 1)), n)
	}
	return f, true
}

func (c *Consumer) corrupt(pos uint64, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: frame at position %d: %s", ErrCorrupt, pos, fmt.Sprintf(format, args...))
	}
}

// frameSlots is how many slots a payload of n bytes takes in a wide ring.
func frameSlots(n int, shift uint8) uint64 {
	return (uint64(n) + wideHeader + 1<<shift - 1) >> shift
}
