package stream

import (
	"fmt"
	"sync"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
)

// table maps handles to anchors: a slot each, whose generation grows with each
// use, so that the handle of an earlier use is known to be stale. A slot that
// has had its last generation is never used again.
type table struct {
	mu    sync.Mutex
	size  int
	slots []tableSlot
	free  []uint16
	live  int

	retired int // slots that have had their last generation
}

type tableSlot struct {
	generation uint64
	anchor     *Anchor
}

// put gives an anchor a slot and answers slot and generation.
func (t *table) put(a *Anchor) (uint16, uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var slot uint16
	switch {
	case len(t.free) > 0:
		// First in, first out: a slot rests as long as it can.
		slot = t.free[0]
		t.free = t.free[1:]
	case len(t.slots) < t.size:
		slot = uint16(len(t.slots))
		t.slots = append(t.slots, tableSlot{})
	case t.retired > 0:
		return 0, 0, fmt.Errorf("%w: %d streams are open in this worker, and %d of the %d slots have had their last generation: close some, or start the node anew", fault.ErrLimit, t.live, t.retired, t.size)
	default:
		return 0, 0, fmt.Errorf("%w: %d streams are open in this worker, of %d at most: close some, or raise MaxStreams", fault.ErrLimit, t.live, t.size)
	}
	s := &t.slots[slot]
	s.generation++
	s.anchor = a
	t.live++
	return slot, s.generation, nil
}

// get finds the anchor of a handle of this worker.
func (t *table) get(h handle.Handle) (*Anchor, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(h.Slot()) >= len(t.slots) {
		return nil, fmt.Errorf("%w: %v: this worker never had a slot %d", fault.ErrNoSuchStream, h, h.Slot())
	}
	s := t.slots[h.Slot()]
	switch {
	case h.Generation() > s.generation:
		return nil, fmt.Errorf("%w: %v: slot %d is at generation %d", fault.ErrNoSuchStream, h, h.Slot(), s.generation)
	case h.Generation() < s.generation:
		return nil, fmt.Errorf("%w: %v: its stream is over, slot %d is at generation %d", fault.ErrStaleHandle, h, h.Slot(), s.generation)
	case s.anchor == nil:
		return nil, fmt.Errorf("%w: %v: its stream is over", fault.ErrStaleHandle, h)
	}
	return s.anchor, nil
}

// drop frees the slot of an anchor.
func (t *table) drop(h handle.Handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[h.Slot()]
	if s.anchor == nil || s.generation != h.Generation() {
		return
	}
	s.anchor = nil
	t.live--
	if s.generation == handle.MaxGeneration {
		t.retired++
		return
	}
	t.free = append(t.free, h.Slot())
}

func (t *table) all() []*Anchor {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*Anchor, 0, t.live)
	for _, s := range t.slots {
		if s.anchor != nil {
			out = append(out, s.anchor)
		}
	}
	return out
}
