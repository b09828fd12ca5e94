package ring

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/novastream/novastream/internal/order"
)

// Exporter reads the committed frames of a ring in the form in which they
// travel to a ring of the same geometry elsewhere: for each frame, its header
// words and its payload, little-endian and without the rest of its last slot;
// at the end of the session its end word. The importing ring ends up the same,
// position by position, so that the free slots of this one, which are given
// back only as the other side's consumer passes them (Credit), are the other's
// free slots too.
//
// One goroutine at a time calls its methods.
type Exporter struct {
	Consumer
	ended  bool
	frames uint64
}

// Exporter begins a session as the one that carries the ring's frames away.
func (r *Ring) Exporter(s Session, notify func(Attention)) *Exporter {
	e := new(Exporter)
	e.open(r, s, notify)
	e.next = s.Start
	return e
}

// Append appends committed frames to buf until it holds max bytes or there is
// nothing more, but at least one if there is one; then the end word, when the
// session has ended. It also answers whether the end was reached.
func (e *Exporter) Append(buf []byte, max int) (out []byte, ended bool) {
	for !e.ended && (len(buf) < max || len(buf) == 0) {
		f, ok := e.peek(e.next)
		if !ok {
			if e.err != nil {
				return buf, false
			}
			if k, end := e.ending(e.next); end {
				e.ended = true
				buf = binary.LittleEndian.AppendUint64(buf, word(e.next, high(e.tag, k)))
			}
			break
		}
		flags := uint64(0)
		if f.More {
			flags = flagMore
		}
		buf = binary.LittleEndian.AppendUint64(buf, word(e.next, high(e.tag, f.Kind)|flags))
		if e.wide {
			buf = binary.LittleEndian.AppendUint64(buf, uint64(len(f.Data)))
		} else if f.Kind == SoftError {
			buf = append(buf, byte(len(f.Data)))
		}
		if f.Kind != Pad { // its bytes mean nothing
			buf = append(buf, f.Data...)
		}
		e.next += f.slots
		if f.numbered() {
			e.frames++
		}
	}
	return buf, e.ended
}

// numbered tells whether a receiver gives the frame a number of its own: not what
// it passes over, nor the pieces of a message but the last.
func (f *Frame) numbered() bool {
	return f.Kind != Pad && f.Kind != Heartbeat && !f.More
}

// Frames is how many values and soft errors were exported.
func (e *Exporter) Frames() uint64 { return e.frames }

// Pending tells whether Append has something to append.
func (e *Exporter) Pending() bool {
	if e.ended || e.err != nil {
		return e.err != nil
	}
	if e.committed(order.Load((*uint64)(e.slot(e.next))), e.next) {
		return true
	}
	_, end := e.ending(e.next)
	return end
}

// HasEnd tells whether the session's end is in the ring. Any goroutine may call
// it.
func (e *Exporter) HasEnd() bool {
	w := order.Load(at64(e.ring.base, offEnd))
	return Kind(w&kindMask>>kindShift).Terminal() && uint8(w>>tagShift) == e.tag
}

// Exported is the position behind the last frame that Append appended.
func (e *Exporter) Exported() uint64 { return e.next }

// Credit gives the slots before pos back to the producer: the other side's
// consumer has passed them. A position that cannot be is ErrCorrupt.
func (e *Exporter) Credit(pos uint64) error {
	if pos-e.pos > e.next-e.pos {
		return fmt.Errorf("%w: credit up to position %d, between %d and %d", ErrCorrupt, pos, e.pos, e.next)
	}
	order.Publish(&e.pos, pos)
	e.publish(pos)
	return nil
}

// Import writes frames that an Exporter of the same geometry and session
// appended into the ring, at their own positions. It answers ErrCorrupt for
// bytes that no exporter makes, and for frames that the ring has no room for,
// which an exporter that keeps to its credits never sends; what came before is
// then in the ring.
func (p *Producer) Import(b []byte) error {
	for len(b) > 0 {
		n, err := p.importOne(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (p *Producer) importOne(b []byte) (int, error) {
	bad := func(what string) (int, error) {
		return 0, fmt.Errorf("%w: imported frame at position %d: %s", ErrCorrupt, p.pos, what)
	}
	head := narrowHeader
	geo := &p.ring.geo
	if len(b) < head {
		return bad("truncated")
	}
	w := binary.LittleEndian.Uint64(b)
	kind := Kind(w & kindMask >> kindShift)
	if (w^word(p.pos, high(p.tag, 0)))&^(kindMask|flagMask) != 0 || kind == 0 || kind > Pad || p.pos&held != 0 || p.ended.Load() {
		return bad(fmt.Sprintf("unexpected word %#x", w))
	}
	if kind.Terminal() {
		p.End(kind)
		return head, nil
	}
	n := geo.Payload
	slots := uint64(1)
	switch {
	case geo.Wide():
		if head = wideHeader; len(b) < head {
			return bad("truncated")
		}
		v := binary.LittleEndian.Uint64(b[8:])
		if v > uint64(geo.Slots*geo.SlotSize) {
			return bad(fmt.Sprintf("length %d", v))
		}
		n = int(v)
		slots = frameSlots(n, p.shift)
		if slots > uint64(geo.Slots)-p.pos&p.mask {
			return bad(fmt.Sprintf("length %d runs over the ring's end", n))
		}
	case kind == SoftError:
		if head++; len(b) < head {
			return bad("truncated")
		}
		if n = int(b[8]); n > geo.SlotSize-narrowHeader-1 {
			return bad(fmt.Sprintf("piece of %d bytes", n))
		}
	case kind != Data:
		n = 0
	}
	carried := n
	if kind == Pad {
		carried = 0
	}
	if len(b) < head+carried {
		return bad("truncated")
	}
	if !p.room(slots) {
		if err := p.Err(); err != nil {
			return 0, err
		}
		return bad("more than the ring has room for")
	}
	payload := b[head : head+carried]
	slot := p.slot(p.pos)
	if geo.Wide() {
		copy(unsafe.Slice((*byte)(unsafe.Add(slot, wideHeader)), carried), payload)
		p.put(p.pos, slots, n, kind, w&flagMask)
		return head + carried, nil
	}
	if kind == SoftError {
		*(*uint8)(unsafe.Add(slot, narrowHeader)) = uint8(n)
		copy(unsafe.Slice((*byte)(unsafe.Add(slot, narrowHeader+1)), n), payload)
	} else {
		copy(unsafe.Slice((*byte)(unsafe.Add(slot, narrowHeader)), carried), payload)
	}
	order.Publish((*uint64)(slot), w) // SYNC: commit
	order.Publish(&p.pos, p.pos+1)
	p.Look()
	return head + carried, nil
}
