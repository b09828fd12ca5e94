package ring

import (
	"fmt"

	"github.com/novastream/novastream/internal/order"
)

// Remote is what one side's view of a ring has in place of shared words when the
// other side is on another host, and writes into this side's memory through a
// device.
//
// A device promises nothing of the order in which the bytes of a write arrive,
// so a commit word alone says nothing there. The writer therefore announces: one
// aligned word, written behind the slots, tells up to which position frames
// are whole. It is encoded as a commit word at that position, of kind 0, or of
// the end's kind when the session ends there; so an end is announced like
// the frames before it.
//
//	SYNC: announce  the other side's device stores Announced -> consumer loads it
//	SYNC: head      the other side's device stores Head -> producer loads it
//
// The consumer looks at no slot at or beyond what was announced, and the fast
// path pays nothing for it: the announced position is one more bound of the limit
// that is checked anyway.
type Remote struct {
	// Announced is the consumer's: the last announcement. The consumer sets it
	// when the session begins; after that the other side writes it.
	Announced *uint64
	// Expand is the consumer's, where encoded ranges may come: it decodes the n bytes
	// that lie in slots behind EncodedHeader, and writes what they say from the first
	// byte of slots on. The peer may change what lies there meanwhile. It is called in
	// the goroutine that reads. Nil: an encoded range is ErrCorrupt.
	Expand func(slots []byte, n int) error
	// Head is the producer's: the consumer's position, as the other side
	// has written it here. It must hold the session's start before the producer is
	// made.
	Head *uint64
	// Armed is called by Arm of the ends made of this view, behind the change of the
	// attention word, in the goroutine that is about to sleep.
	Armed func()
}

// Remote is the same ring with the words of w in place of the segment's. It must
// have one producer; its sessions must not start at position 0.
func (r *Ring) Remote(w Remote) *Ring {
	c := *r
	c.remote = &w
	return &c
}

// gate is the consumer's half of Remote.
type gate struct {
	word *uint64
	seen uint64 // the announcement last taken
	upto uint64 // its position: frames before it may be read
	end  Kind   // and its kind

	expand func(slots []byte, n int) error // nil: nothing may come encoded
}

func (g *gate) open(w *Remote, s Session) error {
	word := w.Announced
	g.word, g.upto, g.expand = word, s.Start, w.Expand
	g.seen = announcement(s.Start, s.Tag, 0)
	order.Publish(word, g.seen)
	if s.Start == 0 {
		// A limit of 0 would look like a seal.
		return fmt.Errorf("%w: the session of a remote ring starts at position 0", ErrMisuse)
	}
	return nil
}

func announcement(pos uint64, tag uint8, k Kind) uint64 { return word(pos, high(tag, k)) }

// announced is the position before which frames may be read, after a look at the
// announcement. What no honest peer announces sets err: another session's tag,
// a position that goes back or beyond what the ring can hold, anything behind an end.
func (c *Consumer) announced() uint64 {
	g := c.gate
	w := order.Load(g.word) // SYNC: announce, pairs with Exporter.Announcement
	if w == g.seen || c.err != nil {
		return g.upto
	}
	upto := g.upto + (w-g.seen)&posMask
	kind := Kind(w & kindMask >> kindShift)
	if w != announcement(upto, c.tag, kind) || kind != 0 && !kind.Terminal() || g.end != 0 ||
		upto-c.published > uint64(c.ring.geo.usable()) {
		c.corrupt(g.upto, "announcement %#x after %#x, the ring is free up to %d", w, g.seen, c.published+uint64(c.ring.geo.usable()))
		return g.upto
	}
	g.seen, g.upto, g.end = w, upto, kind
	// Lost only to Seal, which leaves 0 for good.
	if old := order.Load(&c.limit); old != 0 {
		c.setLimit(old, c.published+c.batch)
	}
	return upto
}

// Arrives looks up to n times whether something new has been announced, when all that
// was is read; false at once in a ring that is not remote.
func (c *Consumer) Arrives(n int) (some bool) {
	pos, g := c.pos, c.gate
	if g == nil || pos&held != 0 || pos < g.upto || c.err != nil {
		return false
	}
	order.Publish(&c.pos, pos|busy)
	for range n {
		// The look at sealed pairs with Seal, as Get's load of limit does.
		if some = order.Load(g.word) != g.seen; some || c.sealed.Load() {
			break
		}
	}
	order.Publish(&c.pos, pos)
	return some
}

// Announced is the position before which frames may be read, and whether the
// session ends there. The consumer of a remote ring calls it.
func (c *Consumer) Announced() (upto uint64, ends bool) {
	upto = c.announced()
	return upto, c.gate.end != 0
}

// Span takes committed frames that are not yet exported, in the form in which
// they lie in memory: n bytes from off on in the segment. It takes no more than
// max bytes, but at least one frame, and does not run over the ring's end; of a
// Pad frame, which ends there, only the header counts. The answer is false when
// there is nothing, or an error (Err).
func (e *Exporter) Span(max int) (off, n int, ok bool) {
	pos, at := e.next, e.next
	stop := pos + min(uint64(e.ring.geo.Slots)-pos&e.mask, uint64(max)>>e.shift+1)
	skip, rest := 0, uint64(0)
	for at < stop {
		if !e.wide && order.Load((*uint64)(e.slot(at))) == word(at, e.hi) { // SYNC: commit
			at++
			continue
		}
		f, ok := e.peek(at)
		if !ok {
			break
		}
		if at > pos && f.slots > stop-at {
			break
		}
		if f.Kind == Pad {
			skip = int(f.slots)<<e.shift - wideHeader
		}
		at += f.slots
		if rest += f.slots; f.numbered() {
			rest--
		}
	}
	e.next = at
	e.frames += at - pos - rest
	off = e.ring.geo.SlotsAt() + int(pos&e.mask)<<e.shift
	return off, int(at-pos)<<e.shift - skip, at != pos
}

// Announcement is the word that announces everything that Span has taken, and
// the session's end when that comes next; ends tells so.
func (e *Exporter) Announcement() (w uint64, ends bool) {
	k, end := e.ending(e.next)
	if !end {
		k = 0
	}
	e.ended = e.ended || end
	return announcement(e.next, e.tag, k), end
}

// ConsumerAttention is the consumer's attention word. Any goroutine may call it.
func (r *Ring) ConsumerAttention() Attention { return Attention(order.Load(r.consumerAttention())) }

// ProducerAttention is the producers' attention word. Any goroutine may call it.
func (r *Ring) ProducerAttention() Attention { return Attention(order.Load(r.producerAttention())) }

// AnnouncesEnd tells whether an announcement is that of an end.
func AnnouncesEnd(w uint64) bool { return w&kindMask != 0 }
