// Package ring holds the lock-free rings that streams run over: bounded, one
// consumer, one producer (Producer) or several (Claimer), over a plain []byte
// that both sides can address.
//
// It is the format and the protocol of one ring and nothing else: no system
// calls, no goroutines, no waiting, no knowledge of streams or of where the
// memory comes from. What a side does when a ring is empty or full is its
// caller's business; the ring only carries the two attention words by which a
// sleeping side says so.
//
// The one-producer ring descends from Lamport's queue with FastForward's
// in-slot flags (Giacomoni et al., PPoPP 2008) and the cached index of MCRingBuffer
// (Lee et al., 2009); the claim of the several-producer ring is a
// compare-and-swap on the tail with an intent record beside it, so that the
// slots of a producer that died holding a claim can be told and skipped.
package ring

import (
	"fmt"
	"unsafe"

	"github.com/novastream/novastream/internal/order"
)

// Ring is one side's view of a segment. It is immutable: any goroutine may use
// it, and it is valid as long as the memory it was made over.
type Ring struct {
	base  unsafe.Pointer
	slots unsafe.Pointer
	geo   Geometry
	mem   []byte // keeps heap memory alive

	remote *Remote // nil: both sides share the segment
}

// Session is one use of a ring's memory, by one sender (or, with several
// producers, by one anchor). Both sides must be given the same.
type Session struct {
	// Start is the position of the first frame.
	Start uint64
	// Tag is in every commit word of the session. A later session of the same
	// memory must use another tag or start where the earlier one ended.
	Tag uint8
}

// Format writes the header of a ring of geometry g to mem, which must be
// zeroed, at least g.SegmentSize() long and aligned to 128 bytes.
func Format(mem []byte, g Geometry) (*Ring, error) {
	if g.Producers == 0 {
		g.Producers = 1
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if err := checkMemory(mem, g.SegmentSize()); err != nil {
		return nil, err
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	flags := uint32(0)
	if g.Wide() {
		flags |= flagWide
	}
	if g.many() {
		flags |= flagMany
	}
	*at32(base, offVersion) = Version
	*at32(base, offByteOrder) = byteOrderMark
	*at32(base, offSlotSize) = uint32(g.SlotSize)
	*at32(base, offSlots) = uint32(g.Slots)
	*at32(base, offFlags) = flags
	*at32(base, offProducers) = uint32(g.Producers)
	*at64(base, offFingerprint) = g.Fingerprint
	*at32(base, offPayload) = uint32(g.Payload)
	*at32(base, offSlotsAt) = uint32(g.SlotsAt())
	order.Publish(at64(base, offMagic), Magic)
	return view(mem, g), nil
}

// Open reads and checks the header of a ring that a peer formatted in mem.
// Nothing of the header is read again afterwards.
func Open(mem []byte) (*Ring, error) {
	if err := checkMemory(mem, offRecords); err != nil {
		return nil, err
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	if m := order.Load(at64(base, offMagic)); m != Magic {
		return nil, fmt.Errorf("%w: magic %#x, want %#x", ErrLayout, m, uint64(Magic))
	}
	if v := *at32(base, offVersion); v != Version {
		return nil, fmt.Errorf("%w: version %d, this build reads version %d: update the older side", ErrLayout, v, Version)
	}
	if b := *at32(base, offByteOrder); b != byteOrderMark {
		return nil, fmt.Errorf("%w: byte order mark %#x, want %#x: the peer has another byte order", ErrLayout, b, byteOrderMark)
	}
	g := Geometry{
		SlotSize:    int(*at32(base, offSlotSize)),
		Slots:       int(*at32(base, offSlots)),
		Payload:     int(*at32(base, offPayload)),
		Producers:   int(*at32(base, offProducers)),
		Fingerprint: *at64(base, offFingerprint),
	}
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	flags := *at32(base, offFlags)
	if (flags&flagWide != 0) != g.Wide() || (flags&flagMany != 0) != g.many() || flags&^(flagWide|flagMany) != 0 {
		return nil, fmt.Errorf("%w: flags %#x contradict payload %d and %d producers", ErrLayout, flags, g.Payload, g.Producers)
	}
	if at := int(*at32(base, offSlotsAt)); at != g.SlotsAt() {
		return nil, fmt.Errorf("%w: slots at %#x, want %#x", ErrLayout, at, g.SlotsAt())
	}
	if err := checkMemory(mem, g.SegmentSize()); err != nil {
		return nil, err
	}
	return view(mem, g), nil
}

func checkMemory(mem []byte, need int) error {
	if len(mem) < need {
		return fmt.Errorf("%w: truncated: %d bytes, want %d", ErrLayout, len(mem), need)
	}
	if a := uintptr(unsafe.Pointer(unsafe.SliceData(mem))) % linePair; a != 0 {
		return fmt.Errorf("%w: memory is %d bytes off an alignment of %d", ErrLayout, a, linePair)
	}
	return nil
}

func view(mem []byte, g Geometry) *Ring {
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return &Ring{base: base, slots: unsafe.Add(base, g.SlotsAt()), geo: g, mem: mem}
}

// Geometry is the ring's shape as it was when the ring was formatted or opened.
func (r *Ring) Geometry() Geometry { return r.geo }

// ConsumerWake and ProducerWake are the words in the segment that a sleeping
// consumer and sleeping producers may wait on with a futex. Whoever wakes
// increments the word first.
func (r *Ring) ConsumerWake() *uint32 { return at32(r.base, offConsumerWake) }

// ProducerWake is the producers' wake word; see ConsumerWake.
func (r *Ring) ProducerWake() *uint32 { return at32(r.base, offProducerWake) }

// Head is the consumer's position as it was last published. Any goroutine may
// call it.
func (r *Ring) Head() uint64 { return order.Load(at64(r.base, offHead)) }

// ArmProducer arms the producers' attention word from any goroutine, for a
// producer that wants to hear of every new head.
func (r *Ring) ArmProducer(mode uint32) { arm(r.producerAttention(), mode) }

func (r *Ring) armed() {
	if r.remote != nil && r.remote.Armed != nil {
		r.remote.Armed()
	}
}

// Reason is why the consumer cancelled the session, valid once a producer has
// seen that it did.
func (r *Ring) Reason() string {
	n := min(*at32(r.base, offReason), MaxReason) // SYNC: reason, pairs with Consumer.Cancel
	return string(unsafe.Slice((*byte)(unsafe.Add(r.base, offReason+4)), n))
}

// Geometry, base and slots come from a header that was checked once, and every
// index is masked by the geometry, so no address that this package forms lies
// outside mem, whatever the peer writes.
func (r *Ring) slot(pos uint64) unsafe.Pointer {
	return unsafe.Add(r.slots, (pos&uint64(r.geo.Slots-1))<<r.geo.shift())
}
