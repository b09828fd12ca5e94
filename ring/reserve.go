package ring

import (
	"fmt"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// Reserve lends room for a frame of n bytes, contiguous and in the ring
// itself, until Commit. The ring must have frames that vary and one producer.
// It answers ErrFull when there is no room now, ErrTooLarge when there never
// will be, or why the producer can send no more.
//
// A frame lies in adjacent slots. Where it would run over the end of the ring,
// the slots up to the end are given away as a Pad frame first; that also
// happens when the answer is ErrFull, so that a frame of any permitted size
// fits in time.
func (p *Producer) Reserve(n int) ([]byte, error) {
	if n < 0 || n > p.largest || p.dirty == nil || p.ring.geo.Payload != 0 {
		return nil, fmt.Errorf("%w: %d bytes, largest %d", ErrTooLarge, n, p.largest)
	}
	if p.pos&held != 0 {
		return nil, fmt.Errorf("%w: a reservation is open: commit it first", ErrMisuse)
	}
	slots := frameSlots(n, p.shift)
	for {
		pos, ok := p.enter()
		if !ok {
			return nil, p.Err()
		}
		limit := order.Load(&p.limit)
		left := p.mask + 1 - pos&p.mask
		need := min(slots, left)
		if limit < pos || limit-pos < need {
			n := p.free(pos)
			p.leave(pos)
			if n < need {
				return nil, p.refusal()
			}
			continue
		}
		if need < slots {
			p.put(pos, left, int(left)<<p.shift-wideHeader, Pad, 0)
			if failpoint.On {
				failpoint.Hit("bytes/padded")
			}
			continue
		}
		order.Publish(&p.pos, pos|lent)
		p.n = uint64(n)
		return unsafe.Slice((*byte)(unsafe.Add(p.slot(pos), wideHeader)), n), nil
	}
}

// Send copies b into the ring as a Data frame. It answers false when that takes
// more than a look at the owner's own words: Reserve tells.
func (p *Producer) Send(b []byte) bool {
	pos := p.pos
	slots := frameSlots(len(b), p.shift)
	if len(b) > p.largest || p.dirty == nil || pos&held != 0 || slots > p.mask+1-pos&p.mask {
		return false
	}
	order.Publish(&p.pos, pos|busy)
	if limit := order.Load(&p.limit); limit < pos || limit-pos < slots { // or sealed: pairs with Seal
		p.leave(pos)
		return false
	}
	CopyIn(unsafe.Slice((*byte)(unsafe.Add(p.slot(pos), wideHeader)), len(b)), b)
	p.put(pos, slots, len(b), Data, 0)
	return true
}

// pastCaches is from where on the runtime's copy, on amd64, writes past the caches
// to memory; the consumer would then read from there and not from a shared cache.
const pastCaches = 1 << 20

// CopyIn copies src to dst, which is as long, by way of the caches.
func CopyIn(dst, src []byte) {
	for len(src) >= pastCaches {
		n := copy(dst[:pastCaches/2], src)
		dst, src = dst[n:], src[n:]
	}
	copy(dst, src)
}

// refusal is why there is no room.
func (p *Producer) refusal() error {
	if err := p.Err(); err != nil {
		return err
	}
	if p.ended.Load() {
		return fmt.Errorf("%w: the session has ended", ErrClosed)
	}
	return ErrFull
}

// Commit publishes the first n bytes of the reservation as a frame of the
// given kind.
func (p *Producer) Commit(n int, kind Kind) error {
	pos := p.pos &^ held
	if p.pos&lent == 0 {
		return fmt.Errorf("%w: nothing is reserved", ErrMisuse)
	}
	if n < 0 || uint64(n) > p.n {
		return fmt.Errorf("%w: commit of %d bytes of %d reserved", ErrMisuse, n, p.n)
	}
	p.put(pos, frameSlots(n, p.shift), n, kind, 0)
	return nil
}

// Abandon gives the reservation back, unpublished.
func (p *Producer) Abandon() {
	p.give(p.pos &^ held)
}

// put publishes the frame of n bytes that lies at pos. The word of the slot
// behind it may be stale payload that looks like a commit word: it is cleared
// first, which is why one slot always stays free.
func (p *Producer) put(pos, slots uint64, n int, kind Kind, flags uint64) {
	next := pos + slots
	if p.isDirty(next) {
		*(*uint64)(p.slot(next)) = 0
		p.setDirty(next, false)
	}
	if failpoint.On {
		failpoint.Hit("bytes/cleared")
	}
	p.setDirty(pos, false)
	p.dirtyRange(pos+1, next)
	slot := p.slot(pos)
	*(*uint64)(unsafe.Add(slot, 8)) = uint64(n)
	if failpoint.On {
		failpoint.Hit("bytes/length")
	}
	order.Publish((*uint64)(slot), word(pos, high(p.tag, kind)|flags)) // SYNC: commit, pairs with peek
	if failpoint.On {
		failpoint.Hit("bytes/published")
	}
	if order.Load(p.attn) != p.seen {
		p.look()
	}
	p.give(next)
}

func (p *Producer) isDirty(pos uint64) bool {
	i := pos & p.mask
	return p.dirty[i/64]&(1<<(i%64)) != 0
}

func (p *Producer) setDirty(pos uint64, on bool) {
	i := pos & p.mask
	if on {
		p.dirty[i/64] |= 1 << (i % 64)
	} else {
		p.dirty[i/64] &^= 1 << (i % 64)
	}
}

// dirtyRange marks the slots from pos to end, which lie within one lap.
func (p *Producer) dirtyRange(pos, end uint64) {
	for pos < end {
		i := pos & p.mask
		n := min(64-i%64, end-pos)
		p.dirty[i/64] |= ^uint64(0) >> (64 - n) << (i % 64)
		pos += n
	}
}

// SoftError publishes text as an error that does not end the stream. In a ring
// of one-word headers it is cut into one-slot pieces, published together; the
// text is cut off at what an eighth of the ring holds, and at 1 KiB.
func (p *Producer) SoftError(text string) error {
	geo := &p.ring.geo
	text = text[:min(len(text), maxText)]
	if p.dirty != nil {
		text = text[:min(len(text), geo.MaxFrame())]
		b, err := p.Reserve(len(text))
		if err != nil {
			return err
		}
		copy(b, text)
		return p.Commit(len(text), SoftError)
	}
	piece := min(geo.SlotSize-narrowHeader-1, 255)
	most := max(geo.Slots/8, 1)
	text = text[:min(len(text), piece*most)]
	n := max((len(text)+piece-1)/piece, 1)
	pos := p.pos
	if pos&held != 0 {
		return fmt.Errorf("%w: a reservation is open: commit it first", ErrMisuse)
	}
	if !p.room(uint64(n)) {
		return p.refusal()
	}
	if _, ok := p.enter(); !ok {
		return p.Err()
	}
	for i := n - 1; i >= 0; i-- {
		part := text[i*piece : min((i+1)*piece, len(text))]
		slot := p.slot(pos + uint64(i))
		*(*uint8)(unsafe.Add(slot, narrowHeader)) = uint8(len(part))
		copy(unsafe.Slice((*byte)(unsafe.Add(slot, narrowHeader+1)), len(part)), part)
		flags := uint64(flagMore)
		if i == n-1 {
			flags = 0
		}
		if failpoint.On && i == 0 && n > 1 {
			failpoint.Hit("soft/all-but-first")
		}
		order.Publish((*uint64)(slot), word(pos+uint64(i), high(p.tag, SoftError)|flags)) // SYNC: commit
	}
	if order.Load(p.attn) != p.seen {
		p.look()
	}
	p.give(pos + uint64(n))
	return nil
}

// maxText is the longest text of a soft error, in bytes.
const maxText = 1024
