package ring

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/order"
)

// Collector is the receiving end of a ring with several producers.
//
// It knows its members: who holds which record in which generation, and who is
// dead. Only what it is told about a death counts, no time passing does.
// A frame of a record that is not a member, or of an earlier generation, is
// refused and counted.
//
// One goroutine at a time calls its methods, but for those that say otherwise.
type Collector struct {
	Consumer
	members []member // by record; 0 is nobody
	past    []past   // ended, not yet told, and their records are others' already
	left    []claim  // of dead members whose records are others' already
	count   int      // members admitted and not yet ended
	dead    int      // records whose holder has died, and that are not admitted again
	ends    uint64   // the ends counter as last seen
	waiting int      // members that are dead, or whose end is known but not due
	since   int      // frames since the ends were last looked at
	refused uint64
	skipped uint64
}

type member struct {
	in       bool
	dead     bool
	revoked  bool // has never joined, and never will
	expelled bool // to be told as ended although it may live; its claims stay its own until it is dead
	ending   bool
	gen      uint32
	dropAt   uint64 // for one that is leaving: the position at which its end is told
}

// past is a member that has ended in order, as far as the ring shows, or is dead,
// and whose record was given to another before the collector came to its end.
type past struct {
	record int
	gen    uint32
	kind   Kind
	at     uint64 // low 48 bits of the position after its last frame
}

// claim is slots that a dead member had claimed and not committed.
type claim struct{ pos, slots uint64 }

// maxPast bounds how many ends may wait to be told of holders whose records are
// others' already.
const maxPast = 4096

// endCheck is after how many frames a busy collector looks for ends.
const endCheck = 256

// Collector begins a session as the consumer of a ring with several producers.
// It must be called before any Claimer of that session is made.
func (r *Ring) Collector(s Session, notify func(Attention)) *Collector {
	c := &Collector{members: make([]member, r.geo.Producers+1)}
	c.open(r, s, notify)
	order.Publish(at64(r.base, offTail), s.Start&posMask)
	c.ends = order.Load(at64(r.base, offEnds))
	return c
}

// Admit makes a record a member with the given generation: the same numbers
// must be given to its Claimer. A record that is a member's, or an expelled
// sender's, is refused until its holder has written its end, is known to be dead,
// or was expelled before it had joined. What a member sent before its end, and the
// end, are delivered although another has its record, and a claim that it left open
// is skipped.
func (c *Collector) Admit(record int, generation uint32) bool {
	if record < 1 || record >= len(c.members) {
		return false
	}
	m := &c.members[record]
	kind, at, ended := c.endOf(record)
	ended = ended && reached(c.tail(), at) // an end behind all that was claimed is a lie
	switch {
	case (m.dead || m.revoked) && !ended:
		kind, at = Dropped, m.dropAt&posMask
	case m.mayLive() && !ended:
		return false
	}
	if m.in && (m.gen == generation || len(c.past) >= maxPast) {
		return false
	}
	if m.dead {
		if pos, open := c.keepClaim(record); open {
			at = pos & posMask // nothing of it lies behind its claim
		}
		c.dead--
	}
	if m.in {
		c.past = append(c.past, past{record, m.gen, kind, at})
		c.waiting++
		c.count--
	}
	rec := c.ring.recordAt(record)
	order.Publish((*uint64)(unsafe.Add(rec, recIntentPos)), 0)
	order.Publish((*uint64)(unsafe.Add(rec, recEnd)), 0)
	order.Publish((*uint64)(unsafe.Add(rec, recJoin)), joinWord(joinOffered, generation)) // SYNC: join
	*m = member{in: true, gen: generation}
	c.count++
	return true
}

// keepClaim remembers the claim that a dead member has left open, before its
// record becomes another's, and answers its position. Whether it has won the claim can
// be told at any time, because it writes nothing any more (see recoverable).
func (c *Collector) keepClaim(record int) (pos uint64, open bool) {
	k, at, _ := c.intent(record)
	pos = c.Position()
	if k == 0 || at-pos >= c.tail()-pos || c.committed(order.Load((*uint64)(c.slot(at))), at) {
		return 0, false
	}
	if !c.proof(order.Load(at64(c.ring.base, offTail)), at+k, uint64(record)) {
		return 0, false
	}
	c.left = append(c.left, claim{at, k})
	return at, true
}

// Retract takes back an Admit whose record nobody was given.
func (c *Collector) Retract(record int) {
	if m := c.member(record); m != nil && m.in {
		m.in = false
		c.count--
	}
}

// Dead says that a member's process has died: nothing of it will be written any
// more. What it committed is delivered, its open claim is skipped, and then the
// collector delivers its Dropped, unless it had ended in order.
func (c *Collector) Dead(record int) {
	if m := c.member(record); m != nil && !m.dead {
		m.dead = true
		c.dead++
		c.leave(m)
	}
}

// Expel says that nothing more is wanted of a member that may still live. What
// it committed is delivered, then its Dropped; a claim that it has open stays
// its own until it commits, or until Dead. One that has not joined yet never will:
// its record is free.
func (c *Collector) Expel(record int) {
	m := c.member(record)
	if m == nil || m.expelled || m.revoked {
		return
	}
	m.revoked = !m.dead && c.revoke(record)
	m.expelled = !m.revoked
	c.leave(m)
	if m.revoked {
		m.dropAt = c.Position() // it has sent nothing
		if failpoint.On {
			failpoint.Hit("expel/revoked")
		}
	}
}

// revoke takes a record back that its member has not joined.
func (c *Collector) revoke(record int) bool {
	gen := c.members[record].gen
	word := (*uint64)(unsafe.Add(c.ring.recordAt(record), recJoin))
	return atomic.CompareAndSwapUint64(word, joinWord(joinOffered, gen), joinWord(joinRevoked, gen)) // SYNC: join
}

// Expelled tells whether the last holder of a record was expelled, had joined and
// may still live, and hold a claim.
func (c *Collector) Expelled(record int) bool {
	m := c.member(record)
	return m != nil && m.expelled && !m.dead
}

func (c *Collector) member(record int) *member {
	if record < 1 || record >= len(c.members) || !c.members[record].in && !c.members[record].expelled {
		return nil
	}
	return &c.members[record]
}

func (c *Collector) leave(m *member) {
	m.dropAt = c.tail()
	if m.in && !m.ending {
		c.waiting++
	}
}

func (m *member) leaving() bool { return m.dead || m.expelled || m.revoked }
func (m *member) mayLive() bool { return (m.in || m.expelled) && !m.dead && !m.revoked }

// Members is how many senders have been admitted and whose end is not told yet.
func (c *Collector) Members() int { return c.count + len(c.past) }

// Refused is how many frames of strangers and of earlier generations were
// passed over.
func (c *Collector) Refused() uint64 { return c.refused }

// Skipped is how many slots were passed over that dead members had claimed and
// not committed.
func (c *Collector) Skipped() uint64 { return c.skipped }

// tail is the position behind everything that was claimed. One that claims what the
// ring has not is the peers' lie.
func (c *Collector) tail() uint64 {
	pos := c.Position()
	tail := pos + (order.Load(at64(c.ring.base, offTail))-pos)&posMask // SYNC: claim
	if tail-c.published > uint64(c.ring.geo.Slots) {
		c.corrupt(pos, "%d slots are claimed, of %d", tail-c.published, c.ring.geo.Slots)
	}
	return tail
}

// Ready tells whether Next may have something to tell.
func (c *Collector) Ready() bool {
	return c.Consumer.Ready() || c.waiting > 0 && c.actionable() || order.Load(at64(c.ring.base, offEnds)) != c.ends ||
		c.lost(c.Position())
}

// actionable tells whether a known end or death can be acted upon now.
func (c *Collector) actionable() bool {
	pos := c.pos &^ held
	for _, p := range c.past {
		if reached(pos, p.at) {
			return true
		}
	}
	for i := range c.members {
		m := &c.members[i]
		if !m.in {
			continue
		}
		if m.leaving() && int64(pos-m.dropAt) >= 0 {
			return true
		}
		if k, at, ok := c.endOf(i); ok && k != 0 && reached(pos, at) {
			return true
		}
	}
	return false
}

// Next takes the next frame of any member, or the end of one: a frame of a
// terminal kind with the member's record and generation, which is a member no
// longer then. See Consumer.Next for the rest.
func (c *Collector) Next() (Frame, bool) {
	for passed := uint64(0); passed <= c.mask; {
		pos, ok := c.take()
		if !ok {
			return Frame{}, false
		}
		if c.since++; c.since >= endCheck {
			if f, ok := c.nextEnd(pos); ok {
				c.untake()
				return f, true
			}
		}
		f, ok := c.fresh(pos)
		if !ok {
			if c.err == nil {
				if e, ok := c.nextEnd(pos); ok {
					c.untake()
					return e, true
				}
				if n, who := c.recoverable(pos); n > 0 {
					c.members[who].dropAt = pos // nothing of it lies behind its claim
					c.since = endCheck
					c.clear(pos, pos+n)
					if failpoint.On {
						failpoint.Hit("recover/cleared")
					}
					c.skipped += n
					passed += n
					c.pass(pos + n)
					continue
				}
			}
			c.untake()
			return Frame{}, false
		}
		if f.slots > 1 {
			c.multi = true
		}
		if f.Kind == Pad || f.Kind == Heartbeat {
			passed += f.slots
			c.pass(pos + f.slots)
			continue
		}
		if m := &c.members[min(f.Record, len(c.members)-1)]; (f.Record >= len(c.members) || !m.in || uint16(m.gen) != f.Generation) && !c.isPast(f) {
			c.refused++
			passed += f.slots
			c.pass(pos + f.slots)
			continue
		}
		c.next = pos + f.slots
		return f, true
	}
	return Frame{}, false
}

// isPast tells whether a frame is of a member that has ended and whose record
// is another's.
func (c *Collector) isPast(f Frame) bool {
	for _, p := range c.past {
		if p.record == f.Record && uint16(p.gen) == f.Generation {
			return true
		}
	}
	return false
}

// pass goes on at next; what is before it is released if nothing else is lent.
func (c *Collector) pass(next uint64) {
	first := c.next == c.pos&^held
	c.next = next
	if first {
		c.Release()
	}
}

// clear zeroes the first word of each slot from pos to end, where payload could
// later be taken for a commit word.
func (c *Consumer) clear(pos, end uint64) {
	for ; pos != end; pos++ {
		order.Publish((*uint64)(c.slot(pos)), 0)
	}
}

// endOf reads a member's end word: its kind, and the low 48 bits of the
// position after its last frame.
func (c *Collector) endOf(i int) (Kind, uint64, bool) {
	w := order.Load((*uint64)(unsafe.Add(c.ring.recordAt(i), recEnd))) // SYNC: end, pairs with Claimer.End
	k := Kind(w & kindMask >> kindShift)
	return k, (w - 1) & posMask, k.Terminal() && uint8(w>>tagShift) == uint8(c.members[i].gen)
}

// nextEnd tells the end of one member that is due: it has said so, or it is
// dead, and the collector has passed everything it sent.
func (c *Collector) nextEnd(pos uint64) (Frame, bool) {
	c.since = 0
	n := order.Load(at64(c.ring.base, offEnds))
	if n == c.ends && c.waiting == 0 {
		return Frame{}, false
	}
	// A member that ends after this load moves the counter again.
	c.ends = n
	c.waiting = 0
	found := Frame{}
	past := c.past[:0]
	for _, p := range c.past { // before whoever has their record now
		if found.Kind == 0 && reached(pos, p.at) {
			found = Frame{Kind: p.kind, Record: p.record, Generation: uint16(p.gen)}
			continue
		}
		past = append(past, p)
		c.waiting++
	}
	c.past = past
	for i := range c.members {
		m := &c.members[i]
		if !m.in {
			continue
		}
		kind, at, ok := c.endOf(i)
		switch {
		case ok && reached(pos, at):
		case m.leaving() && int64(pos-m.dropAt) >= 0: // an end behind all that was claimed is a lie
			kind = Dropped
		case ok:
			m.ending = true
			c.waiting++
			continue
		case m.leaving():
			c.waiting++
			continue
		default:
			continue
		}
		if found.Kind != 0 {
			c.waiting++ // the next call tells it
			continue
		}
		found = Frame{Kind: kind, Record: i, Generation: uint16(m.gen)}
		m.in = false
		if ok {
			m.expelled = false // who has ended holds no claim
		}
		c.count--
	}
	return found, found.Kind != 0
}

// lost tells whether the slots at pos are those of a claim that a dead member left
// open.
func (c *Collector) lost(pos uint64) bool {
	n, _ := c.recoverable(pos)
	return n > 0
}

// recoverable tells how many slots at pos belong to a claim that a dead member
// left open: 0 when the claim is a living one's, or there is none. It answers its
// record too, or 0, which is nobody's, when that is another's already.
//
// Who claimed pos has a record that says pos, because a claimer has one claim
// open and writes the record before the swap; those who lost the same swap may
// have too. So a dead one whose record says pos has won only if there is proof:
// the tail still ends its claim and names it, or whoever claimed next saw it do
// so, and says so in its record or in the header of the frame that it committed
// there. One of the three always holds for a winner. That nobody else's record
// says pos proves nothing: the winner may have committed since the caller looked,
// and have gone on.
func (c *Collector) recoverable(pos uint64) (slots uint64, record int) {
	for i := 0; i < len(c.left); i++ {
		switch at := c.left[i].pos; {
		case at == pos:
			return c.left[i].slots, 0
		case int64(at-pos) < 0:
			c.left = slices.Delete(c.left, i, i+1)
			i--
		}
	}
	if c.dead == 0 {
		return 0, 0 // the living commit; the tail's line is left to them
	}
	tail := order.Load(at64(c.ring.base, offTail))
	if (tail-pos)&posMask == 0 {
		return 0, 0
	}
	for i := 1; i < len(c.members); i++ {
		if !c.members[i].dead {
			continue
		}
		if k, at, _ := c.intent(i); at == pos && k > 0 && c.proof(tail, pos+k, uint64(i)) {
			return k, i
		}
	}
	return 0, 0
}

// intent reads a record: the slots, position and predecessor of its last claim.
func (c *Collector) intent(i int) (slots, pos, prev uint64) {
	rec := c.ring.recordAt(i)
	pos = atomic.LoadUint64((*uint64)(unsafe.Add(rec, recIntentPos))) - 1 // SYNC: intent
	info := atomic.LoadUint64((*uint64)(unsafe.Add(rec, recIntentInfo)))
	slots, prev = info&(1<<32-1), info>>32
	if slots > uint64(c.ring.geo.Slots)-pos&c.mask {
		slots = 0 // no claim runs over the end of the ring
	}
	return slots, pos, prev
}

// proof tells whether somebody saw that record's claim end at pos.
func (c *Collector) proof(tail, pos, record uint64) bool {
	if (tail-pos)&posMask == 0 {
		return tail>>tailRecordShift&recordMask == record
	}
	for i := 1; i < len(c.members); i++ {
		if k, at, prev := c.intent(i); k > 0 && at == pos && prev == record {
			return true
		}
	}
	slot := c.slot(pos)
	return c.committed(order.Load((*uint64)(slot)), pos) &&
		*(*uint64)(unsafe.Add(slot, 8))>>prevShift&recordMask == record
}
