package ring

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// link is a mirror, a receiver's ring, and what a device does between them.
type link struct {
	g            Geometry
	mirror, mem  []byte
	p            *Producer
	x            *Exporter
	c            *Consumer
	head, word   uint64
	armed, wants int
}

func newLink(t testing.TB, g Geometry, s Session) *link {
	l := &link{g: g, head: s.Start}
	var m, r *Ring
	l.mirror, m = newRing(t, g)
	l.mem, r = newRing(t, g)
	m = m.Remote(Remote{Head: &l.head, Armed: func() { l.wants++ }})
	l.c = r.Remote(Remote{Announced: &l.word, Armed: func() { l.armed++ }}).Consumer(s, nil)
	l.x = m.Exporter(s, nil)
	l.p = m.Producer(s, nil)
	return l
}

// carry writes what is committed, and does not announce it.
func (l *link) carry(max int) (n int) {
	for {
		off, size, ok := l.x.Span(max)
		if !ok {
			return n
		}
		n++
		copy(l.mem[off:off+size], l.mirror[off:off+size])
	}
}

func (l *link) announce() bool {
	w, ends := l.x.Announcement()
	atomic.StoreUint64(&l.word, w)
	return ends
}

// credit is what the receiver's lane writes back.
func (l *link) credit() { atomic.StoreUint64(&l.head, l.c.ring.Head()) }

func TestRemoteArrives(t *testing.T) {
	l := newLink(t, fixed56, Session{Start: 16, Tag: 7})
	require.False(t, l.c.Arrives(3), "nothing is announced")
	require.NoError(t, Put(l.p, &seven{1}))
	l.carry(1 << 20)
	require.False(t, l.c.Arrives(3), "what was written is not announced")
	l.announce()
	require.True(t, l.c.Arrives(1))
	require.True(t, l.c.Quiesced())
	require.True(t, l.c.Ready())
	require.False(t, l.c.Arrives(1<<62), "what was seen is to be read first")
	var v seven
	_, ok := Get(l.c, &v)
	require.True(t, ok)
	require.False(t, l.c.Arrives(3))

	go l.c.Seal()
	require.False(t, l.c.Arrives(1<<62), "it ends with the consumer")
	require.True(t, l.c.Quiesced())

	_, plain := newRing(t, fixed56)
	require.False(t, plain.Consumer(Session{}, nil).Arrives(1<<62))
}

func TestRemoteNothingIsReadBeforeItIsAnnounced(t *testing.T) {
	s := Session{Start: 16, Tag: 7}
	l := newLink(t, fixed56, s)
	for i := range uint64(16) {
		require.NoError(t, Put(l.p, &seven{i}))
	}
	require.Error(t, Put(l.p, &seven{16}))
	require.Equal(t, 1, l.carry(1<<20))

	// All of it is there, and none of it may be seen by any way to read.
	nothing := func() {
		var v seven
		_, ok := Get(l.c, &v)
		require.False(t, ok)
		require.Zero(t, l.c.Lend(10))
		for range Each[seven](l.c, 10) {
			require.Fail(t, "a frame that was not announced")
		}
		_, ok = l.c.Next()
		require.False(t, ok)
		require.False(t, l.c.Ready())
		_, ok = l.c.NextData()
		require.False(t, ok)
		require.NoError(t, l.c.Err())
	}
	nothing()
	atomic.StoreUint64(&l.word, announcement(16+3, 7, 0))
	require.True(t, l.c.Ready())
	var v seven
	pos, ok := Get(l.c, &v)
	require.True(t, ok)
	require.Equal(t, uint64(16), pos)
	n := 0
	for p := range Each[seven](l.c, 10) {
		n++
		require.Equal(t, uint64(n), p[0])
	}
	require.Equal(t, 2, n)
	nothing()

	l.announce()
	require.Equal(t, 5, l.c.Lend(5))
	require.Equal(t, seven{3}, *LentAt[seven](l.c, 0))
	l.c.Release()
	for i := range uint64(8) {
		f, ok := l.c.Next()
		require.True(t, ok)
		require.Equal(t, 8+i, binary.LittleEndian.Uint64(f.Data))
	}
	_, ok = l.c.Next() // while frames are lent
	require.False(t, ok)
	l.c.Release()
	nothing()

	// The head of the other side makes room.
	l.c.Settle()
	require.Error(t, Put(l.p, &v))
	l.credit()
	require.NoError(t, Put(l.p, &seven{16}))
	require.True(t, l.p.End(Finalized))
	l.carry(1)
	nothing()
	require.True(t, l.announce())
	_, ok = Get(l.c, &v)
	require.True(t, ok)
	require.Equal(t, seven{16}, v)
	_, ok = Get(l.c, &v)
	require.False(t, ok)
	require.True(t, l.c.Ready())
	for range 3 {
		f, ok := l.c.Next()
		require.True(t, ok)
		require.Equal(t, Finalized, f.Kind)
	}
	upto, ends := l.c.Announced()
	require.Equal(t, uint64(33), upto)
	require.True(t, ends)
}

func TestRemoteHeadIsNotPaidEarlier(t *testing.T) {
	l := newLink(t, Geometry{SlotSize: 64, Slots: 64, Payload: 56}, Session{Start: 64, Tag: 1})
	var v seven
	for i := range uint64(40) {
		require.NoError(t, Put(l.p, &seven{i}))
		l.carry(1 << 20)
		l.announce()
		_, ok := Get(l.c, &v)
		require.True(t, ok)
		_, ok = Get(l.c, &v)
		require.False(t, ok)
		// An eighth of a ring, as without a gate, although every read meets it.
		require.Equal(t, 64+i/8*8+uint64(b2i(i%8 == 7))*8, l.c.ring.Head())
	}
	require.Positive(t, l.c.Position())
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Frames of every size, announced in pieces, over many laps, from just before
// the commit word wraps; what the device has not written yet is rubbish.
func TestRemoteSpansEverySize(t *testing.T) {
	for _, g := range []Geometry{{SlotSize: 64, Slots: 16}, {SlotSize: 16, Slots: 64}, {SlotSize: 64, Slots: 4}} {
		l := newLink(t, g, Session{Start: 1<<48 - 200, Tag: 9})
		rnd := rand.New(rand.NewPCG(1, uint64(g.Slots)))
		for i := range l.mem[g.SlotsAt():] {
			l.mem[g.SlotsAt()+i] = byte(rnd.Uint32())
		}
		var sent [][]byte
		got := 0
		for round := 0; got < 3000; round++ {
			for range rnd.IntN(4) {
				b, err := l.p.Reserve(rnd.IntN(g.MaxFrame() + 1))
				if err != nil {
					require.ErrorIs(t, err, ErrFull)
					break
				}
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				sent = append(sent, bytes.Clone(b))
				require.NoError(t, l.p.Commit(len(b), Data))
			}
			for range rnd.IntN(3) {
				off, n, ok := l.x.Span(1 + rnd.IntN(400))
				if !ok {
					break
				}
				require.LessOrEqual(t, off+n, g.SlotsAt()+g.Slots*g.SlotSize)
				copy(l.mem[off:off+n], l.mirror[off:off+n])
				l.announce()
			}
			for range rnd.IntN(5) {
				f, ok := l.c.Next()
				if !ok {
					require.NoError(t, l.c.Err())
					break
				}
				require.Equal(t, sent[got], append([]byte{}, f.Data...))
				got++
				l.c.Release()
			}
			if rnd.IntN(2) == 0 {
				l.c.Settle()
			}
			l.credit()
		}
		l.carry(1 << 20)
		require.EqualValues(t, len(sent), l.x.Frames())
	}
}

// Frames are counted as a receiver numbers them: a soft error once, however many
// slots its text takes, and Pads not at all.
func TestExporterCounts(t *testing.T) {
	for _, g := range []Geometry{fixed56, {SlotSize: 64, Slots: 64}} {
		for name, export := range map[string]func(x *Exporter){
			"appended": func(x *Exporter) { x.Append(nil, 1<<20) },
			"spanned":  func(x *Exporter) { x.Span(1 << 20) },
		} {
			_, r := newRing(t, g)
			s := Session{Start: 16, Tag: 1}
			x, p := r.Exporter(s, nil), r.Producer(s, nil)
			for range 2 {
				require.NoError(t, p.SoftError(strings.Repeat("a long text. ", 20)))
				if g.Wide() {
					_, err := p.Reserve(100)
					require.NoError(t, err)
					require.NoError(t, p.Commit(90, Data))
				} else {
					require.NoError(t, Put(p, new(seven)))
				}
				export(x)
			}
			require.False(t, x.Pending(), name)
			require.EqualValues(t, 4, x.Frames(), name)
		}
	}
}

// A span is one request: as few as the geometry permits.
func TestRemoteSpansAreLong(t *testing.T) {
	l := newLink(t, fixed56, Session{Start: 16, Tag: 1})
	fill := func(n int) {
		for range n {
			require.NoError(t, Put(l.p, new(seven)))
		}
	}
	drain := func() {
		l.announce()
		for _, ok := l.c.Next(); ok; _, ok = l.c.Next() {
		}
		l.c.Release()
		l.c.Settle()
		l.credit()
	}
	fill(10)
	require.Equal(t, 1, l.carry(1<<20))
	drain()
	fill(16)
	require.Equal(t, 2, l.carry(1<<20), "6 slots to the ring's end, and 10")
	drain()
	require.NoError(t, Put(l.p, new(seven)))
	require.NoError(t, l.p.SoftError("a soft error is a frame like others"))
	off, n, ok := l.x.Span(1 << 20)
	require.True(t, ok)
	require.Equal(t, l.g.SlotsAt()+10*64, off)
	require.Equal(t, 2*64, n)

	// Of a Pad only the header.
	l = newLink(t, Geometry{SlotSize: 64, Slots: 16}, Session{Start: 16, Tag: 1})
	commit := func(n int) {
		_, err := l.p.Reserve(n)
		require.NoError(t, err)
		require.NoError(t, l.p.Commit(n, Data))
	}
	commit(12*64 - 16)
	l.carry(1 << 20)
	drain()
	commit(6 * 64)
	off, n, ok = l.x.Span(1 << 20)
	require.True(t, ok)
	require.Equal(t, l.g.SlotsAt()+12*64, off)
	require.Equal(t, 16, n)
	off, n, ok = l.x.Span(1)
	require.True(t, ok)
	require.Equal(t, l.g.SlotsAt(), off)
	require.Equal(t, 7*64, n, "at least one frame")
}

func TestRemoteRefusesLies(t *testing.T) {
	const start, tag = 48, 5
	for name, w := range map[string]uint64{
		"another tag":       announcement(start+1, tag+1, 0),
		"flags":             announcement(start+1, tag, 0) | flagMore,
		"a kind of data":    announcement(start+1, tag, Data),
		"a kind of nothing": announcement(start+1, tag, 11),
		"beyond the ring":   announcement(start+17, tag, 0),
		"far beyond":        announcement(start+1<<40, tag, 0),
		"backwards":         announcement(start-1, tag, 0),
		"end beyond":        announcement(start+17, tag, Finalized),
		"zero":              0,
		"ones":              ^uint64(0),
		"not there":         announcement(start+2, tag, 0),
	} {
		l := newLink(t, fixed56, Session{Start: start, Tag: tag})
		require.NoError(t, Put(l.p, &seven{1}))
		l.carry(1 << 20)
		l.word = w
		require.True(t, l.c.Ready(), name)
		var v seven
		got := 0
		for range 3 {
			if _, ok := Get(l.c, &v); ok {
				got++
			}
		}
		f, ok := l.c.Next()
		require.False(t, ok, "%s: %v", name, f)
		require.ErrorIs(t, l.c.Err(), ErrCorrupt, name)
		require.Equal(t, b2i(name == "not there"), got, name)
		require.False(t, func() bool { _, ok := l.c.Next(); return ok }(), name)
	}
	// Behind an end nothing may be announced, nor another end.
	for _, w := range []uint64{announcement(start+1, tag, 0), announcement(start, tag, 0), announcement(start, tag, Dropped)} {
		l := newLink(t, fixed56, Session{Start: start, Tag: tag})
		l.word = announcement(start, tag, Detached)
		f, ok := l.c.Next()
		require.True(t, ok)
		require.Equal(t, Detached, f.Kind)
		l.word = w
		_, ok = l.c.Next()
		require.False(t, ok)
		require.ErrorIs(t, l.c.Err(), ErrCorrupt)
	}
	// Credits that cannot be.
	for _, head := range []uint64{start - 17, start + 2, 0, ^uint64(0)} {
		l := newLink(t, fixed56, Session{Start: start, Tag: tag})
		require.NoError(t, Put(l.p, &seven{1}))
		l.head = head
		require.Zero(t, l.p.Free())
		require.ErrorIs(t, l.p.Err(), ErrCorrupt)
	}
	// A session that starts at 0.
	l := newLink(t, fixed56, Session{Tag: tag})
	require.ErrorIs(t, l.c.Err(), ErrMisuse)
	_, ok := l.c.Next()
	require.False(t, ok)
}

func TestRemoteArmIsHeard(t *testing.T) {
	l := newLink(t, fixed56, Session{Start: 16, Tag: 1})
	l.c.Arm(2)
	l.p.Arm(2)
	require.Equal(t, 1, l.armed)
	require.Equal(t, 1, l.wants)
	require.Equal(t, uint32(2), l.c.ring.ConsumerAttention().Mode())
	require.Equal(t, uint32(2), l.p.ring.ProducerAttention().Mode())
	l.c.Seal()
	l.p.Seal()
	var v seven
	l.announce()
	_, ok := Get(l.c, &v)
	require.False(t, ok)
	require.Zero(t, atomic.LoadUint64(&l.c.limit), "a seal stays")
}

// The device and the two ends at once.
func TestRemoteAtOnce(t *testing.T) {
	l := newLink(t, Geometry{SlotSize: 32, Slots: 128, Payload: 24}, Session{Start: 128, Tag: 1})
	const total = 100_000
	go func() {
		for i := uint64(0); i < total; {
			runtime.Gosched()
			for p := range Slots[[3]uint64](l.p, 50) {
				*p = [3]uint64{i, i * 3, ^i}
				if i++; i == total {
					break
				}
			}
		}
		l.p.End(Finalized)
	}()
	go func() {
		for !l.x.ended {
			l.carry(777)
			l.announce()
			l.credit()
			runtime.Gosched()
		}
	}()
	next := uint64(0)
	for next < total-1 {
		for p := range Each[[3]uint64](l.c, 64) {
			if *p != [3]uint64{next, next * 3, ^next} {
				require.Equal(t, [3]uint64{next, next * 3, ^next}, *p)
			}
			next++
		}
		l.c.Settle()
		runtime.Gosched()
	}
	require.NoError(t, l.c.Err())
}
