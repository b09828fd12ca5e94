package rdma

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/rdma"
)

// What one side's device writes into the other's memory.
//
// The receiver's region, RemoteWrite, of its one sender:
//
//	0               +------------------------------------------+
//	                | the ring's segment; of it the sender      |  slots: the sender
//	                | writes slots, whole frames at a time      |
//	SegmentSize     +------------------------------------------+
//	  + 0x000       | announcement, as ring.Remote has it       |  the sender
//	  + 0x800       | outbox                                    |  this side: what its
//	                +------------------------------------------+  requests send
//
// The sender's mirror, for its own device only, is laid out alike, without the
// announcement. Its page of credits, RemoteWrite, of its one receiver:
//
//	0x000  head: the consumer's position
//	0x080  state: how the consumer has closed the ring, its attention word
//	0x100  reason: length in 4 bytes, then text
//
// The words are 8 bytes, aligned, and each has one writer: so each is stored
// whole, and no word is written by both a processor and a device. Both ends compute
// the offsets; only the regions' addresses and keys are exchanged.
const (
	pageSize = 4096

	offAnnounced = 0x000
	offOutbox    = 0x800

	offHead   = 0x000
	offState  = 0x080
	offReason = 0x100

	// ringReason is where the ring's segment has the reason (docs/layout.md).
	ringReason = 0x180
)

// The immediates: a kind and, for those that arm, the low bits of the position that
// the sleeping side has seen.
//
//	 31   29 28                         0
//	+-------+----------------------------+
//	| kind  |          position          |
//	+-------+----------------------------+
//
// A ring has at most 2^28 slots, so the position's low bits tell whether the
// other side has gone beyond it.
const (
	immKind = 29
	immMask = 1<<immKind - 1

	immAnnounced = 1 // to the receiver: look at the announcement
	immRoomless  = 2 // to the receiver: the producer sleeps; it has seen this head
	immCredit    = 3 // to the sender: look at the head
	immIdle      = 4 // to the sender: the consumer sleeps; it has seen this announcement
	immClosed    = 5 // to the sender: look at the state
)

func imm(kind uint32, pos uint64) uint32 { return kind<<immKind | uint32(pos)&immMask }

// low is the part of a position that an immediate carries.
func low(pos uint64) uint32 { return uint32(pos) & immMask }

// posOf is the low bits of an announcement's position: it is encoded as a commit
// word, one more than the position.
func posOf(announcement uint64) uint64 { return announcement - 1 }

// wordAt is a word of a region. off is a constant of this file or computed from a
// checked geometry, and the region is as large as both say; regions begin on a page.
func wordAt(r rdma.Region, off int) *uint64 {
	return (*uint64)(unsafe.Pointer(&r.Bytes()[off : off+8 : off+8][0]))
}

func load(r rdma.Region, off int) uint64 { return atomic.LoadUint64(wordAt(r, off)) }

// reason reads the reason that the receiver has written.
func reason(page []byte, most int) string {
	n := binary.LittleEndian.Uint32(page[offReason:])
	return string(page[offReason+4 : offReason+4+min(int(n), most)])
}
