package ring

import (
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/order"
)

// poke writes a word of a segment, as a peer can that has it mapped.
func poke(r *Ring, off uintptr, v uint64) { order.Publish(at64(r.base, off), v) }

// commit makes a frame at a position, honest or not.
func (r *Ring) commitAs(s Session, pos uint64, kind Kind, flags, header uint64) {
	slot := r.slot(pos)
	*(*uint64)(unsafe.Add(slot, 8)) = header
	order.Publish((*uint64)(slot), word(pos, high(s.Tag, kind)|flags))
}

// lap commits a whole ring of frames from a position on.
func (r *Ring) lap(s Session, pos uint64, kind Kind, header uint64) {
	for i := range uint64(r.geo.Slots) {
		r.commitAs(s, pos+i, kind, 0, header)
	}
}

// A sender that writes frames that are nobody's as fast as they are passed over
// does not keep a call for ever.
func TestPassingOverEnds(t *testing.T) {
	s := Session{Start: 40, Tag: 3}
	for name, g := range map[string]Geometry{
		"narrow":    {SlotSize: 16, Slots: 64, Payload: 8},
		"wide":      {SlotSize: 32, Slots: 64},
		"strangers": {SlotSize: 32, Slots: 64, Producers: 4},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := newRing(t, g)
			kind, header := Heartbeat, uint64(0)
			var c *Consumer
			laps := 0
			chase := func(Attention) { // called for each head that finds the sender armed
				if laps++; laps > 1000 {
					t.Fatal("a call goes on for ever")
				}
				r.lap(s, c.Position(), kind, header)
				r.ArmProducer(1)
			}
			var next func() (Frame, bool)
			if g.many() {
				kind, header = Data, 7<<recordShift|1
				col := r.Collector(s, chase)
				c, next = &col.Consumer, col.Next
			} else {
				c = r.Consumer(s, chase)
				next = c.Next
			}
			r.lap(s, s.Start, kind, header)
			r.ArmProducer(1)
			for range 20 {
				_, ok := next()
				require.False(t, ok)
				require.NoError(t, c.Err())
			}
			require.Greater(t, c.Position(), s.Start+64)
		})
	}
}

// Frames that are taken and kept are as many as the ring has, whatever the sender
// writes behind them.
func TestNoMoreIsLentThanTheRingHas(t *testing.T) {
	s := Session{Tag: 3}
	_, r := newRing(t, Geometry{SlotSize: 16, Slots: 64, Payload: 8})
	c := r.Consumer(s, nil)
	for pos := range uint64(64) {
		r.commitAs(s, pos, SoftError, flagMore, 1)
	}
	for pos := range uint64(64) {
		_, ok := c.Next()
		require.True(t, ok)
		r.commitAs(s, pos+64, SoftError, flagMore, 1) // a slot that is lent
	}
	_, ok := c.Next()
	require.False(t, ok)
	require.ErrorIs(t, c.Err(), ErrCorrupt)
	require.ErrorContains(t, c.Err(), "position 64")
}

// What a receiver writes cannot keep a claimer: a head that the tail has not
// reached, or a tail that changes under each claim.
func TestClaimEndsUnderLies(t *testing.T) {
	g := Geometry{SlotSize: 64, Slots: 64, Producers: 4, Payload: 48}
	for name, lie := range map[string]func(r *Ring){
		"head ahead":         func(r *Ring) { poke(r, offHead, 70) },
		"head far ahead":     func(r *Ring) { poke(r, offHead, 1<<47) },
		"head behind":        func(r *Ring) { poke(r, offHead, ^uint64(0)-1000) },
		"tail far ahead":     func(r *Ring) { poke(r, offTail, 1<<40) },
		"tail behind a head": func(r *Ring) { poke(r, offHead, 100); poke(r, offTail, 64) },
	} {
		t.Run(name, func(t *testing.T) {
			_, r := newRing(t, g)
			require.True(t, r.Collector(Session{Tag: 1}, nil).Admit(1, 1))
			p, err := r.Claimer(Session{Tag: 1}, 1, 1, nil)
			require.NoError(t, err)
			v := [6]uint64{}
			for range 64 {
				require.NoError(t, PutShared(p, &v))
			}
			lie(r)
			require.ErrorIs(t, PutShared(p, &v), ErrCorrupt)
			require.True(t, p.Ready(1))
		})
	}
	t.Run("tail never still", func(t *testing.T) {
		_, r := newRing(t, g)
		require.True(t, r.Collector(Session{Tag: 1}, nil).Admit(1, 1))
		p, err := r.Claimer(Session{Tag: 1}, 1, 1, nil)
		require.NoError(t, err)
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := uint64(0); !stop.Load(); i++ {
				poke(r, offTail, i%64|i%5<<tailRecordShift)
			}
		}()
		v := [6]uint64{}
		for range 1000 {
			if err := PutShared(p, &v); err != nil {
				require.True(t, err == ErrFull || strings.Contains(err.Error(), "corrupt"), "%v", err)
			}
		}
		stop.Store(true)
		<-done
	})
}

// What members lie about their claims and ends, the collector tells as corrupt or
// as their death, and never waits for.
func TestCollectorIsNotKeptByLies(t *testing.T) {
	recEndAt := func(r *Ring, record int) uintptr {
		return uintptr(unsafe.Pointer(unsafe.Add(r.recordAt(record), recEnd))) - uintptr(r.base)
	}
	t.Run("an end that never comes, then death", func(t *testing.T) {
		x := newGroup(t, many)
		x.send(t, 1, 8)
		poke(x.r, recEndAt(x.r, 1), word(1<<30, high(x.p[1].gen, Finalized)))
		poke(x.r, offEnds, 1)
		x.expect(t, 1, Data)
		x.nothing(t)
		x.c.Dead(1)
		x.expect(t, 1, Dropped)
	})
	t.Run("an end that never comes frees no record", func(t *testing.T) {
		x := newGroup(t, many)
		poke(x.r, recEndAt(x.r, 1), word(1<<30, high(x.p[1].gen, Finalized)))
		require.False(t, x.c.Admit(1, 99))
	})
	t.Run("more claimed than there is", func(t *testing.T) {
		x := newGroup(t, many)
		poke(x.r, offTail, 1<<30)
		x.c.Dead(1)
		_, ok := x.c.Next()
		require.False(t, ok)
		require.ErrorIs(t, x.c.Err(), ErrCorrupt)
		require.True(t, x.c.Ready())
	})
}

// A producer that is closed while slots are lent finds the end of what it has
// committed, and no further, although the receiver forges commits behind it.
func TestAbortEndsUnderForgedCommits(t *testing.T) {
	for name, g := range map[string]Geometry{"narrow": {SlotSize: 16, Slots: 64, Payload: 8}, "wide": {SlotSize: 32, Slots: 64}} {
		t.Run(name, func(t *testing.T) {
			s := Session{Tag: 3}
			_, r := newRing(t, g)
			p := r.Producer(s, nil)
			if g.Wide() {
				_, err := p.Reserve(8)
				require.NoError(t, err)
			} else {
				require.NotZero(t, p.Lend(4))
			}
			laps := 0
			p.Seal()
			p.Abort(Dropped, func() {
				if laps++; laps > 1000 {
					t.Fatal("a call goes on for ever")
				}
				r.lap(s, (*at64(r.base, offEnd)-1)&posMask, Data, 8)
			})
			require.True(t, p.Ended())
			require.LessOrEqual(t, (*at64(r.base, offEnd)-1)&posMask, uint64(64))
		})
	}
}
