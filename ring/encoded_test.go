package ring

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// newEncodedLink is a link whose consumer takes encoded ranges, made by flate.
func newEncodedLink(t testing.TB, g Geometry, s Session) *link {
	l := newLink(t, g, s)
	var r *Ring
	l.mem, r = newRing(t, g)
	l.c = r.Remote(Remote{Announced: &l.word, Expand: inflate}).Consumer(s, nil)
	return l
}

func inflate(slots []byte, n int) error {
	b, err := io.ReadAll(flate.NewReader(bytes.NewReader(bytes.Clone(slots[EncodedHeader : EncodedHeader+n]))))
	if err == nil && len(b) > len(slots) {
		err = errors.New("too much")
	}
	copy(slots, b)
	return err
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// carryEncoded is carry of one range, encoded if that makes it smaller.
func (l *link) carryEncoded(max int) (ok, smaller bool) {
	from := l.x.Exported()
	off, n, ok := l.x.Span(max)
	if !ok {
		return false, false
	}
	raw := l.mirror[off : off+n]
	b := append(make([]byte, EncodedHeader), deflate(raw)...)
	if smaller = len(b) < n; !smaller {
		b = raw
	} else {
		l.x.PutEncodedHeader(b, from, len(b)-EncodedHeader)
	}
	copy(l.mem[off:], b)
	return true, smaller
}

// Every way to read finds the frames of an encoded range, and nothing that was not
// announced.
func TestEncodedEveryWayToRead(t *testing.T) {
	s := Session{Start: 16, Tag: 7}
	for name, read := range map[string]func(c *Consumer) []uint64{
		"Next": func(c *Consumer) (got []uint64) {
			for f, ok := c.Next(); ok; f, ok = c.Next() {
				got = append(got, binary.LittleEndian.Uint64(f.Data))
			}
			c.Release()
			return got
		},
		"Lend": func(c *Consumer) (got []uint64) {
			for n := c.Lend(3); n > 0; n = c.Lend(3) {
				for i := range n {
					got = append(got, LentAt[seven](c, i)[0])
				}
				c.Release()
			}
			return got
		},
		"Each": func(c *Consumer) (got []uint64) {
			for before := -1; len(got) != before; {
				before = len(got)
				for v := range Each[seven](c, 3) {
					got = append(got, v[0])
				}
			}
			return got
		},
		"Get, and Next where it has nothing": func(c *Consumer) (got []uint64) {
			for {
				var v seven
				if _, ok := Get(c, &v); ok {
					got = append(got, v[0])
					continue
				}
				f, ok := c.Next()
				if !ok {
					return got
				}
				got = append(got, binary.LittleEndian.Uint64(f.Data))
				c.Release()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newEncodedLink(t, fixed56, s)
			next := uint64(0)
			for range 5 {
				for range 10 {
					require.NoError(t, Put(l.p, &seven{next}))
					next++
				}
				n := 0
				for ok, small := l.carryEncoded(1 << 20); ok; ok, small = l.carryEncoded(1 << 20) {
					n += b2i(small)
				}
				require.Positive(t, n)
				require.Empty(t, read(l.c), "nothing was announced")
				l.announce()
				require.True(t, l.c.Ready())
				got := read(l.c)
				require.NoError(t, l.c.Err())
				require.Len(t, got, 10)
				require.Equal(t, next-10, got[0])
				require.Equal(t, next-1, got[9])
				l.c.Settle()
				l.credit()
			}
		})
	}
}

// Frames of every size, in ranges that are encoded or not as they turn out, several
// of them announced at once, over many laps.
func TestEncodedRangesOfEverySize(t *testing.T) {
	for _, g := range []Geometry{{SlotSize: 64, Slots: 64}, {SlotSize: 16, Slots: 128}} {
		l := newEncodedLink(t, g, Session{Start: 1<<48 - 200, Tag: 9})
		rnd := rand.New(rand.NewPCG(1, uint64(g.Slots)))
		var sent [][]byte
		got, smaller := 0, 0
		for got < 3000 {
			for range rnd.IntN(6) {
				b, err := l.p.Reserve(rnd.IntN(g.MaxFrame() + 1))
				if err != nil {
					require.ErrorIs(t, err, ErrFull)
					break
				}
				clear(b)
				for i := range b[:min(len(b), rnd.IntN(64))] {
					b[i] = byte(rnd.Uint32())
				}
				sent = append(sent, bytes.Clone(b))
				require.NoError(t, l.p.Commit(len(b), Data))
			}
			for range rnd.IntN(4) {
				_, small := l.carryEncoded(1 + rnd.IntN(1000))
				smaller += b2i(small)
			}
			l.announce()
			for range rnd.IntN(8) {
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
		require.Greater(t, smaller, 100)
	}
}

func TestEncodedRefusesLies(t *testing.T) {
	const start, tag = 48, 5
	g := Geometry{SlotSize: 64, Slots: 16}
	body := func(first uint64) []byte {
		return deflate(append(binary.LittleEndian.AppendUint64(nil, first), make([]byte, 100)...))
	}
	frame := word(start, high(tag, Data))
	for name, c := range map[string]struct {
		slots, bytes uint64
		body         []byte
	}{
		"no slots":           {0, 20, body(frame)},
		"not announced":      {5, 20, body(frame)},
		"beyond the ring":    {17, 20, body(frame)},
		"far beyond":         {1<<32 - 1, 20, body(frame)},
		"no bytes":           {4, 0, body(frame)},
		"as many as it has":  {4, 4*64 - EncodedHeader, body(frame)},
		"more than it has":   {4, 1<<32 - 1, body(frame)},
		"cut short":          {4, 5, body(frame)},
		"rubbish":            {4, 20, bytes.Repeat([]byte{0xff}, 20)},
		"larger than it was": {1, 30, deflate(make([]byte, 1000))},
		"nothing in it":      {4, 20, body(0)},
		"another position":   {4, 20, body(word(start+1, high(tag, Data)))},
		"encoded again":      {4, 20, body(word(start, high(tag, encoded)))},
	} {
		t.Run(name, func(t *testing.T) {
			l := newEncodedLink(t, g, Session{Start: start, Tag: tag})
			at := g.SlotsAt()
			binary.LittleEndian.PutUint64(l.mem[at:], word(start, high(tag, encoded)))
			binary.LittleEndian.PutUint64(l.mem[at+8:], c.slots<<32|c.bytes)
			copy(l.mem[at+EncodedHeader:], c.body)
			atomic.StoreUint64(&l.word, announcement(start+4, tag, 0))
			require.Zero(t, l.c.Lend(1))
			_, ok := l.c.Next()
			require.False(t, ok)
			require.ErrorIs(t, l.c.Err(), ErrCorrupt)
		})
	}
	// Where they were not agreed to.
	l := newLink(t, g, Session{Start: start, Tag: tag})
	binary.LittleEndian.PutUint64(l.mem[g.SlotsAt():], word(start, high(tag, encoded)))
	atomic.StoreUint64(&l.word, announcement(start+4, tag, 0))
	_, ok := l.c.Next()
	require.False(t, ok)
	require.ErrorIs(t, l.c.Err(), ErrCorrupt)
}
