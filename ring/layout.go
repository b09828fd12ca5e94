package ring

import "unsafe"

// The segment, from its first byte. docs/layout.md is the specification, and
// cgo/include/nova_ring.h the same for other languages; the constants below
// and that header are compared field by field in a test.
//
//	0x0000 +--------------------------------------------------+
//	       | header: magic, version, geometry, fingerprint    |  written once, by the
//	0x0080 | head                                             |  receiver; a sender maps
//	0x0100 | receiver's attention word                        |  this page read-only
//	0x0180 | why the receiver closed: length, text            |
//	0x1000 +--------------------------------------------------+
//	       | tail: the claim word (several producers only)    |  written by senders,
//	0x1080 | end word (one producer only)                     |  except the two wake
//	0x1100 | sender's attention word                          |  words, which either
//	0x1180 | receiver's wake word   0x1200 sender's wake word |  side increments
//	0x1280 | ends: how many producers have ended              |
//	0x2000 +--------------------------------------------------+
//	       | one record of 128 bytes a producer (MPSC only)   |
//	       +--------------------------------------------------+ page-aligned
//	       | slots                                            |
//	       +--------------------------------------------------+
//
// Every word that one side writes and the other reads has 128 bytes to
// itself: two lines, because the adjacent-line prefetcher pulls them in pairs.
const (
	// Magic is "NOVARING" as a little-endian word.
	Magic = 0x474e495241564f4e
	// Version is the layout's version; another version is another layout.
	Version = 2

	pageSize = 4096
	linePair = 128

	offMagic       = 0x00
	offVersion     = 0x08
	offByteOrder   = 0x0c
	offSlotSize    = 0x10
	offSlots       = 0x14
	offFlags       = 0x18
	offProducers   = 0x1c
	offFingerprint = 0x20
	offPayload     = 0x28
	offSlotsAt     = 0x2c

	offHead         = 0x0080
	offConsumerAttn = 0x0100
	offReason       = 0x0180 // length in 4 bytes, then so many bytes of text

	offTail         = 0x1000
	offEnd          = 0x1080
	offProducerAttn = 0x1100
	offConsumerWake = 0x1180
	offProducerWake = 0x1200
	offEnds         = 0x1280
	offRecords      = 0x2000

	byteOrderMark = 0x01020304

	flagWide = 1 << 0
	flagMany = 1 << 1
)

// SenderReadOnly is how many bytes at the start of a segment only the
// receiver writes: a sender maps them read-only.
const SenderReadOnly = pageSize

// A producer's record, one a producer in a ring with several. Its producer
// alone writes it from when it has joined, and the receiver reads it when that
// producer is dead. The join word says who has joined: see joinWord.
const (
	recIntentPos  = 0x00 // position + 1 of the claim it is about to make, 0 for none
	recIntentInfo = 0x08 // slots of that claim (0–31), claimer seen in the tail (32–63)
	recEnd        = 0x10 // end word: a commit word at the position after its last frame
	recJoin       = 0x18 // join word
	recordSize    = linePair
)

// The join word of a record: what has become of the receiver's offer of it
// (bits 0–31), and the generation that it was offered with (32–63). The receiver
// stores offered; from there the producer swaps it to joined, or the receiver,
// who has given the producer up, to revoked: exactly one of them does.
const (
	joinOffered  = 1
	joinJoined   = 2
	joinRevoked  = 3
	joinGenShift = 32
)

func joinWord(state uint64, generation uint32) uint64 {
	return state | uint64(generation)<<joinGenShift
}

// The commit word, first word of a frame:
//
//	 63     56 55   52 51  48 47                                    0
//	+---------+-------+------+---------------------------------------+
//	|   tag   | flags | kind |       (position + 1) mod 2^48         |
//	+---------+-------+------+---------------------------------------+
//
// The tag is the session's, so that a word of an earlier session of the same
// memory never matches. The word is compared whole with what must be there,
// so the position's wrap (after eight days at 400 million frames a second)
// needs no care. It is never 0, because no kind is.
const (
	posBits   = 48
	posMask   = 1<<posBits - 1
	kindShift = 48
	kindMask  = 0xf << kindShift
	flagShift = 52
	flagMask  = 0xf << flagShift
	tagShift  = 56

	// flagMore marks all but the last slot of a message that is cut into
	// one-slot frames (a soft error in a ring of one-word headers).
	flagMore = 1 << flagShift
)

// The second word of a wide header:
//
//	 63              48 47        38 37        28 27                 0
//	+------------------+------------+------------+--------------------+
//	|    generation    |    prev    |   record   |   payload length   |
//	+------------------+------------+------------+--------------------+
//
// With one producer only the length is used. With several, record is the
// sender's own, prev the record of whoever claimed just before, and
// generation, of which the word has 16 bits, tells the senders apart that held
// the same record in turn.
const (
	narrowHeader = 8
	wideHeader   = 16

	lengthBits  = 28
	lengthMask  = 1<<lengthBits - 1
	recordBits  = 10
	recordMask  = 1<<recordBits - 1
	recordShift = lengthBits
	prevShift   = recordShift + recordBits
	genShift    = prevShift + recordBits
)

// The tail of a ring with several producers: the next free position in the
// low 48 bits, and above it the record of whoever claimed last.
const tailRecordShift = posBits

// Limits of the format.
const (
	MinSlotSize  = 16
	MaxSlotSize  = 1 << 24
	MinSlots     = 4
	MaxSlots     = 1 << 28
	MaxProducers = 1 << recordBits / 2
	MaxReason    = 1024 // bytes
	maxSegment   = 1 << 40
)

func at64(base unsafe.Pointer, off uintptr) *uint64 { return (*uint64)(unsafe.Add(base, off)) }
func at32(base unsafe.Pointer, off uintptr) *uint32 { return (*uint32)(unsafe.Add(base, off)) }

// word makes the commit word of a frame at pos. It is generic, as slotAt is, for
// the reason given at order.Load.
func word[T ~uint64](pos, hi T) T { return (pos+1)&posMask | hi }

// slotAt is the address of a position's slot. Base, mask and shift come from a
// geometry that was checked, so it lies within the segment for any position.
func slotAt[T ~uint64](base unsafe.Pointer, pos, mask T, shift uint8) unsafe.Pointer {
	return unsafe.Add(base, (pos&mask)<<(shift&63))
}

// high makes the high bits of a commit word.
func high(tag uint8, kind Kind) uint64 {
	return uint64(tag)<<tagShift | uint64(kind)<<kindShift
}
