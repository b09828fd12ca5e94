package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/novastream/novastream/internal/order"
)

// An encoded range is what a range of frames travels as to a remote ring when
// both ends have agreed to encode: fewer bytes than its slots have, written to
// where its slots begin, so it needs no other memory and no other credits. The
// consumer makes the frames of it, in their own slots, when it comes to it:
//
//	+------------------+------------------+-------------------------+
//	| commit word,     | slots (32–63)    | encoded bytes,          |  then bytes that
//	| kind 11          | bytes (0–31)     | as Remote.Expand has it |  mean nothing
//	+------------------+------------------+-------------------------+
//
// A range begins at a frame, ends at one, and does not run over the ring's end. Kind
// 11 is in no ring whose sides share memory.
const encoded Kind = 11

// EncodedHeader is how many bytes an encoded range has before those that the codec
// has made.
const EncodedHeader = 16

// PutEncodedHeader writes the header of the range that Span took last, from position
// from on, with n bytes behind it.
func (e *Exporter) PutEncodedHeader(b []byte, from uint64, n int) {
	binary.LittleEndian.PutUint64(b, word(from, high(e.tag, encoded)))
	binary.LittleEndian.PutUint64(b[8:], (e.next-from)<<32|uint64(n))
}

// expand makes the frames of an encoded range, if one lies at pos. What was announced
// goes up to upto. What no honest peer writes sets err, and the answer is false.
func (c *Consumer) expand(pos, upto uint64) bool {
	g := c.gate
	slot := c.slot(pos)
	if g.expand == nil || order.Load((*uint64)(slot)) != word(pos, high(c.tag, encoded)) { // SYNC: announce
		return true
	}
	h := order.Load((*uint64)(unsafe.Add(slot, 8)))
	slots, n := h>>32, h&(1<<32-1)
	room := min(upto-pos, uint64(c.ring.geo.Slots)-pos&c.mask)
	if slots == 0 || slots > room || n == 0 || n >= slots<<c.shift-EncodedHeader {
		c.corrupt(pos, "encoded in %d bytes, %d slots where %d can be", n, slots, room)
		return false
	}
	// The slots are within the ring, and nobody reads them but this consumer: they
	// are behind all that it has taken. The peer may still write to them.
	err := g.expand(unsafe.Slice((*byte)(slot), slots<<c.shift), int(n))
	if w := order.Load((*uint64)(slot)); err == nil && (!c.committed(w, pos) || w&kindMask == uint64(encoded)<<kindShift) {
		err = errors.New("no frame in it")
	}
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("%w: encoded range at position %d: %w", ErrCorrupt, pos, err)
	}
	return err == nil
}
