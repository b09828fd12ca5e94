package ring

import (
	"fmt"
	"math/bits"
)

// Geometry is the shape of a ring: it fixes the size of its segment.
type Geometry struct {
	// SlotSize is the bytes of a slot, header included: a power of two from
	// MinSlotSize.
	SlotSize int
	// Slots is the capacity in slots: a power of two from MinSlots.
	Slots int
	// Payload is the bytes of every frame's payload when all have the same
	// size and are exchanged in place; 0 when frames vary.
	Payload int
	// Producers is how many senders share the ring: 0 or 1 for one.
	Producers int
	// Fingerprint identifies the layout of the payload's type; 0 for bytes.
	Fingerprint uint64
}

// Wide tells whether frames have a header of two words: frames that vary in
// length, and rings with several producers.
func (g Geometry) Wide() bool { return g.Payload == 0 || g.many() }

func (g Geometry) many() bool { return g.Producers > 1 }

// HeaderSize is the bytes of a frame before its payload: 8 or 16.
func (g Geometry) HeaderSize() int {
	if g.Wide() {
		return wideHeader
	}
	return narrowHeader
}

// FixedSlotSize is the smallest slot that holds a payload of n bytes, for a
// ring with one producer or with several.
func FixedSlotSize(n, producers int) int {
	h := narrowHeader
	if producers > 1 {
		h = wideHeader
	}
	size := MinSlotSize
	for size < n+h && size < MaxSlotSize {
		size <<= 1
	}
	return size
}

// MaxFrame is the largest payload that one frame can carry. Frames that vary
// may take all the slots but the one that is kept clear behind them.
func (g Geometry) MaxFrame() int {
	if g.Payload != 0 {
		return g.Payload
	}
	return min((g.Slots-1)*g.SlotSize-wideHeader, lengthMask)
}

// usable is how many slots may be in flight: all, or all but one where the
// producer must clear the slot behind a frame before it publishes (see
// Producer.Reserve).
func (g Geometry) usable() int {
	if g.Wide() && !g.many() {
		return g.Slots - 1
	}
	return g.Slots
}

// SlotsAt is the offset of the first slot in the segment.
func (g Geometry) SlotsAt() int {
	at := offRecords
	if g.many() {
		// Record 0 stands for "nobody".
		at += (g.Producers + 1) * recordSize
	}
	return (at + pageSize - 1) &^ (pageSize - 1)
}

// SegmentSize is the bytes of a segment of this geometry, in whole pages.
func (g Geometry) SegmentSize() int {
	return (g.SlotsAt() + g.Slots*g.SlotSize + pageSize - 1) &^ (pageSize - 1)
}

// Validate tells what is wrong with a geometry, as an ErrGeometry that names
// the value and what is allowed.
func (g Geometry) Validate() error {
	switch {
	case g.SlotSize < MinSlotSize || g.SlotSize > MaxSlotSize || bits.OnesCount(uint(g.SlotSize)) != 1:
		return fmt.Errorf("%w: slot size %d: use a power of two from %d to %d", ErrGeometry, g.SlotSize, MinSlotSize, MaxSlotSize)
	case g.Slots < MinSlots || g.Slots > MaxSlots || bits.OnesCount(uint(g.Slots)) != 1:
		return fmt.Errorf("%w: capacity of %d slots: use a power of two from %d to %d", ErrGeometry, g.Slots, MinSlots, MaxSlots)
	case g.Producers < 0 || g.Producers > MaxProducers:
		return fmt.Errorf("%w: %d producers: use 1 to %d", ErrGeometry, g.Producers, MaxProducers)
	case g.Payload < 0 || g.Payload > lengthMask:
		return fmt.Errorf("%w: payload of %d bytes: use 0 for frames that vary, else 1 to %d", ErrGeometry, g.Payload, lengthMask)
	case g.Payload > 0 && g.Payload+g.HeaderSize() > g.SlotSize:
		return fmt.Errorf("%w: payload of %d bytes and a header of %d do not fit a slot of %d: use slots of %d",
			ErrGeometry, g.Payload, g.HeaderSize(), g.SlotSize, FixedSlotSize(g.Payload, g.Producers))
	case uint64(g.Slots)*uint64(g.SlotSize) > maxSegment:
		return fmt.Errorf("%w: %d slots of %d bytes: a ring has at most %d bytes", ErrGeometry, g.Slots, g.SlotSize, uint64(maxSegment))
	}
	return nil
}

func (g Geometry) shift() uint8 { return uint8(bits.TrailingZeros(uint(g.SlotSize))) }
