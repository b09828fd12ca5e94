package ring

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

type seven [7]uint64

func pair(t testing.TB, g Geometry, s Session) (*Producer, *Consumer) {
	_, r := newRing(t, g)
	c := r.Consumer(s, nil)
	return r.Producer(s, nil), c
}

var fixed56 = Geometry{SlotSize: 64, Slots: 16, Payload: 56}

func TestGeometryIsChecked(t *testing.T) {
	for _, c := range []struct {
		g    Geometry
		text string
	}{
		{Geometry{SlotSize: 8, Slots: 16}, "slot size 8"},
		{Geometry{SlotSize: 48, Slots: 16}, "slot size 48"},
		{Geometry{SlotSize: 1 << 25, Slots: 16}, "slot size"},
		{Geometry{SlotSize: 64, Slots: 0}, "capacity of 0"},
		{Geometry{SlotSize: 64, Slots: 2}, "capacity of 2"},
		{Geometry{SlotSize: 64, Slots: 100}, "capacity of 100"},
		{Geometry{SlotSize: 64, Slots: 16, Payload: 57}, "use slots of 128"},
		{Geometry{SlotSize: 64, Slots: 16, Payload: -1}, "payload of -1"},
		{Geometry{SlotSize: 64, Slots: 16, Producers: 4096}, "4096 producers"},
		{Geometry{SlotSize: 1 << 24, Slots: 1 << 28}, "at most"},
	} {
		_, err := Format(alignedBytes(1<<16), c.g)
		require.ErrorIs(t, err, ErrGeometry)
		require.ErrorContains(t, err, c.text)
	}
	_, err := Format(alignedBytes(4096), fixed56)
	require.ErrorIs(t, err, ErrLayout)
	_, err = Format(alignedBytes(1 << 16)[8:], fixed56)
	require.ErrorContains(t, err, "alignment")
}

func TestOpenRefuses(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"magic":          func(b []byte) []byte { b[0]++; return b },
		"version":        func(b []byte) []byte { b[offVersion] = 9; return b },
		"byte order":     func(b []byte) []byte { b[offByteOrder] = 9; return b },
		"slot size":      func(b []byte) []byte { b[offSlotSize] = 63; return b },
		"capacity":       func(b []byte) []byte { b[offSlots] = 3; return b },
		"flags":          func(b []byte) []byte { b[offFlags] = 7; return b },
		"producers":      func(b []byte) []byte { b[offProducers+1] = 0xff; return b },
		"payload":        func(b []byte) []byte { b[offPayload] = 200; return b },
		"slots at":       func(b []byte) []byte { b[offSlotsAt] = 1; return b },
		"truncated":      func(b []byte) []byte { return b[:len(b)-pageSize] },
		"truncated: 100": func(b []byte) []byte { return b[:100] },
	} {
		mem, _ := newRing(t, Geometry{SlotSize: 64, Slots: 64, Payload: 56})
		_, err := Open(spoil(mem))
		require.ErrorIs(t, err, ErrLayout, name)
		require.ErrorContains(t, err, name[:min(9, len(name))])
	}
}

func TestFixedFillAndDrain(t *testing.T) {
	p, c := pair(t, fixed56, Session{Tag: 3})
	var v seven
	for lap := range uint64(5) {
		for i := range uint64(16) {
			require.NoError(t, Put(p, &seven{lap*16 + i}))
		}
		v = seven{99}
		require.Error(t, Put(p, &v))
		require.Equal(t, seven{99}, v)
		for i := range uint64(16) {
			pos, ok := Get(c, &v)
			require.True(t, ok)
			require.Equal(t, lap*16+i, v[0])
			require.Equal(t, v[0], pos)
		}
		_, ok := Get(c, &v)
		require.False(t, ok)
		c.Settle()
	}
}

func TestSlotsBreakGivesBack(t *testing.T) {
	p, c := pair(t, fixed56, Session{})
	n := uint64(0)
	for s := range Slots[seven](p, 10) {
		if n == 4 {
			break
		}
		s[0] = n
		n++
	}
	seen := uint64(0)
	for s := range Each[seven](c, 100) {
		require.Equal(t, seen, s[0])
		seen++
	}
	require.Equal(t, uint64(4), seen)
	for range 2 { // first what was known to be free
		for s := range Slots[seven](p, 100) {
			s[0] = n
			n++
		}
	}
	require.Equal(t, uint64(4+16), n, "Each has released what it has passed")
	for range Slots[seven](p, 1) {
		require.Fail(t, "a full ring has slots")
	}
}

func TestPanicInSlotsLeavesThemLent(t *testing.T) {
	p, c := pair(t, fixed56, Session{})
	func() {
		defer func() { _ = recover() }()
		n := 0
		for s := range Slots[seven](p, 8) {
			if s[0] = uint64(n); n == 3 {
				panic("in the body")
			}
			n++
		}
	}()
	require.True(t, p.Lent())
	require.Error(t, Put(p, &seven{}))
	require.False(t, p.End(Finalized))
	for range Slots[seven](p, 8) {
		require.Fail(t, "slots are lent twice")
	}
	require.True(t, p.Lent(), "a refused loop gives nothing back")
	p.Seal()
	p.Abort(Dropped, func() {})
	for i := range uint64(3) {
		var v seven
		_, ok := Get(c, &v)
		require.True(t, ok)
		require.Equal(t, i, v[0])
	}
	f, ok := c.Next()
	require.True(t, ok)
	require.Equal(t, Dropped, f.Kind)
}

func TestAbortUnderALoopThatGoesOn(t *testing.T) {
	p, c := pair(t, fixed56, Session{})
	n := 0
	for range Slots[seven](p, 6) {
		if n++; n == 3 {
			p.Seal()
			p.Abort(Dropped, func() {})
		}
	}
	for range 6 {
		var v seven
		_, ok := Get(c, &v)
		require.True(t, ok)
	}
	f, ok := c.Next()
	require.True(t, ok, "the end has moved behind what was committed")
	require.Equal(t, Dropped, f.Kind)
}

func TestBatchIsSeenWholeOrNotAtAll(t *testing.T) {
	p, c := pair(t, fixed56, Session{})
	require.Equal(t, 5, p.Lend(5))
	for i := range 5 {
		At[seven](p, i)[0] = uint64(i)
	}
	require.Zero(t, c.Lend(5))
	require.False(t, p.Publish(6))
	require.Zero(t, p.Lend(1))
	require.True(t, p.Publish(3))
	require.False(t, p.Publish(0))
	require.Equal(t, 3, c.Lend(5))
	require.Zero(t, c.Lend(1))
	for i := range 3 {
		require.Equal(t, uint64(i), LentAt[seven](c, i)[0])
	}
	require.Equal(t, 13, p.Free())
	c.Release()
	c.Settle()
	require.Equal(t, 16, p.Free())
}

func TestLentSlotsAreNotReused(t *testing.T) {
	p, c := pair(t, fixed56, Session{})
	for i := range uint64(16) {
		require.NoError(t, Put(p, &seven{i}))
	}
	require.Equal(t, 16, c.Lend(16))
	c.Settle()
	require.Error(t, Put(p, &seven{}))
	c.Release()
	require.NoError(t, Put(p, &seven{}))
}

func TestEndsNeedNoRoom(t *testing.T) {
	for k := Detached; k <= Dropped; k++ {
		for _, g := range []Geometry{fixed56, {SlotSize: 64, Slots: 16}} {
			p, c := pair(t, g, Session{Tag: 9})
			n := 0
			for {
				if g.Payload != 0 && Put(p, &seven{}) != nil {
					break
				}
				if g.Payload == 0 {
					if _, err := p.Reserve(40); err != nil {
						require.ErrorIs(t, err, ErrFull)
						break
					}
					require.NoError(t, p.Commit(40, Data))
				}
				n++
			}
			require.True(t, p.End(k))
			require.True(t, p.End(Finalized), "a second end changes nothing")
			require.False(t, g.Payload != 0 && Put(p, &seven{}) == nil)
			for range n {
				f, ok := c.Next()
				require.True(t, ok)
				require.Equal(t, Data, f.Kind)
				c.Release()
			}
			for range 3 {
				f, ok := c.Next()
				require.True(t, ok)
				require.Equal(t, k, f.Kind)
			}
		}
	}
	p, _ := pair(t, fixed56, Session{})
	require.False(t, p.End(Data))
}

// A ring that starts a thousand positions before its commit word wraps runs
// across it.
func TestConf_61_WrapOfTheCommitWord(t *testing.T) {
	s := Session{Start: 1<<posBits - 1000, Tag: 7}
	t.Run("fixed", func(t *testing.T) {
		p, c := pair(t, fixed56, s)
		for i := range uint64(3000) {
			require.NoError(t, Put(p, &seven{i}))
			var v seven
			pos, ok := Get(c, &v)
			require.True(t, ok, "%d", i)
			require.Equal(t, i, v[0])
			require.Equal(t, s.Start+i, pos)
		}
		require.True(t, p.End(Finalized))
		f, ok := c.Next()
		require.True(t, ok)
		require.Equal(t, Finalized, f.Kind)
	})
	t.Run("variable", func(t *testing.T) {
		p, c := pair(t, Geometry{SlotSize: 64, Slots: 16}, s)
		for i := range 3000 {
			exchange(t, p, c, i*7%300, byte(i))
		}
	})
	t.Run("many", func(t *testing.T) {
		_, r := newRing(t, Geometry{SlotSize: 64, Slots: 16, Producers: 3})
		c := r.Collector(s, nil)
		require.True(t, c.Admit(2, 5))
		p, err := r.Claimer(s, 2, 5, nil)
		require.NoError(t, err)
		for i := range 3000 {
			b, err := p.Reserve(i * 7 % 300)
			if err == ErrFull { // the pad of the last try is to be passed
				_, ok := c.Next()
				require.False(t, ok)
				c.Settle()
				b, err = p.Reserve(i * 7 % 300)
			}
			require.NoError(t, err)
			require.NoError(t, p.Commit(len(b), Data))
			f, ok := c.Next()
			require.True(t, ok, "%d", i)
			require.Len(t, f.Data, len(b))
			c.Release()
			c.Settle()
		}
		require.True(t, p.End(Detached))
		f, ok := c.Next()
		require.True(t, ok)
		require.Equal(t, Detached, f.Kind)
	})
}

// exchange sends one frame of n bytes and receives it.
// exchange carries one frame of n bytes, written in place or copied in, and read by
// either way to read.
func exchange(t *testing.T, p *Producer, c *Consumer, n int, fill byte) {
	if p.Send(bytes.Repeat([]byte{fill}, n)) {
		data, ok := c.NextData()
		require.True(t, ok)
		require.Equal(t, bytes.Repeat([]byte{fill}, n), append([]byte{}, data...))
		_, ok = c.NextData()
		require.False(t, ok)
		c.Release()
		c.Settle()
		require.Zero(t, c.Behind())
		return
	}
	exchangeInPlace(t, p, c, n, fill)
}

func exchangeInPlace(t *testing.T, p *Producer, c *Consumer, n int, fill byte) {
	b, err := p.Reserve(n)
	if err == ErrFull { // the pad of the first try is to be passed
		_, ok := c.Next()
		require.False(t, ok)
		c.Settle()
		b, err = p.Reserve(n)
	}
	require.NoError(t, err)
	for i := range b {
		b[i] = fill
	}
	require.NoError(t, p.Commit(n, Data))
	f, ok := c.Next()
	require.True(t, ok)
	require.Len(t, f.Data, n)
	for _, x := range f.Data {
		require.Equal(t, fill, x)
	}
	c.Release()
	c.Settle()
}

func TestVariableEverySizeAtEveryOffset(t *testing.T) {
	g := Geometry{SlotSize: 32, Slots: 16}
	for start := range 3 * 16 { // the cursors of Send look ahead by up to a lap
		for n := 0; n <= g.MaxFrame(); n += 5 {
			p, c := pair(t, g, Session{})
			for range start {
				exchange(t, p, c, 0, 0)
			}
			exchange(t, p, c, n, 0xab)
			exchange(t, p, c, 3, 0xcd)
			exchangeInPlace(t, p, c, n, 0xef)
		}
	}
	p, _ := pair(t, g, Session{})
	_, err := p.Reserve(g.MaxFrame() + 1)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = p.Reserve(-1)
	require.ErrorIs(t, err, ErrTooLarge)
}

func TestReservationRules(t *testing.T) {
	p, c := pair(t, Geometry{SlotSize: 32, Slots: 16}, Session{})
	require.ErrorIs(t, p.Commit(0, Data), ErrMisuse)
	b, err := p.Reserve(100)
	require.NoError(t, err)
	copy(b, "less than was reserved")
	_, err = p.Reserve(1)
	require.ErrorIs(t, err, ErrMisuse)
	require.ErrorIs(t, p.Commit(101, Data), ErrMisuse)
	require.NoError(t, p.Commit(22, Data))
	f, ok := c.Next()
	require.True(t, ok)
	require.Equal(t, "less than was reserved", string(f.Data))
	c.Release()
	_, err = p.Reserve(10)
	require.NoError(t, err)
	p.Abandon()
	_, ok = c.Next()
	require.False(t, ok)
}

// Stale payload must never be read as a commit word: here every word of every
// payload is the commit word that its place would need in the next lap.
func TestAscendingWordsAreNoCommits(t *testing.T) {
	g := Geometry{SlotSize: 32, Slots: 16}
	p, c := pair(t, g, Session{Tag: 1})
	for round := range 2000 {
		n := (1 + round%6) * 32
		b, err := p.Reserve(n)
		if err == ErrFull {
			_, ok := c.Next()
			require.False(t, ok)
			c.Settle()
			b, err = p.Reserve(n)
		}
		require.NoError(t, err)
		first := p.Position()
		for i := 0; i+8 <= len(b); i += 8 {
			slot := first + uint64(i+wideHeader)/uint64(g.SlotSize)
			*(*uint64)(unsafe.Pointer(&b[i])) = word(slot+uint64(g.Slots), high(1, Data))
		}
		require.NoError(t, p.Commit(n, Data))
		f, ok := c.Next()
		require.True(t, ok)
		require.Len(t, f.Data, n)
		c.Release()
		c.Settle()
		_, ok = c.Next()
		require.False(t, ok, "round %d: stale payload was read as a frame", round)
		require.NoError(t, c.Err())
	}
}

func TestSessionsOfOneMemory(t *testing.T) {
	_, r := newRing(t, Geometry{SlotSize: 32, Slots: 16})
	next := uint64(0)
	for tag := range uint8(20) {
		s := Session{Start: next, Tag: tag}
		c := r.Consumer(s, nil)
		_, ok := c.Next()
		require.False(t, ok, "a frame of an earlier session")
		p := r.Producer(s, nil)
		for i := range 10 {
			exchange(t, p, c, i*11, tag)
		}
		require.True(t, p.End(Detached))
		f, ok := c.Next()
		require.True(t, ok)
		require.Equal(t, Detached, f.Kind)
		next = c.Position()
	}
}

func TestSoftErrorsFitAnyRing(t *testing.T) {
	text := "this text is longer than most slots of a ring of small values are"
	for _, g := range []Geometry{{SlotSize: 16, Slots: 64, Payload: 8}, fixed56, {SlotSize: 32, Slots: 16}} {
		p, c := pair(t, g, Session{})
		require.NoError(t, p.SoftError(text))
		got, more := "", true
		for more {
			f, ok := c.Next()
			require.True(t, ok)
			require.Equal(t, SoftError, f.Kind)
			got, more = got+string(f.Data), f.More
		}
		require.Equal(t, text[:len(got)], got)
		require.GreaterOrEqual(t, len(got), 50)
	}
}

func TestConsumerRefusesLies(t *testing.T) {
	for name, lie := range map[string]func(r *Ring){
		"kind 5":  func(r *Ring) { *(*uint64)(r.slot(0)) = word(0, high(0, Detached)) },
		"kind 15": func(r *Ring) { *(*uint64)(r.slot(0)) = word(0, high(0, 15)) },
		"length": func(r *Ring) {
			*(*uint64)(r.slot(0)) = word(0, high(0, Data))
			*(*uint64)(unsafe.Add(r.slot(0), 8)) = lengthMask
		},
		"kind 0 a": func(r *Ring) { *(*uint64)(r.slot(0)) = word(0, high(0, 0)) },
	} {
		_, r := newRing(t, Geometry{SlotSize: 64, Slots: 16})
		c := r.Consumer(Session{}, nil)
		lie(r)
		_, ok := c.Next()
		require.False(t, ok)
		require.ErrorIs(t, c.Err(), ErrCorrupt, name)
		require.True(t, c.Ready())
	}
	_, r := newRing(t, fixed56)
	r.Consumer(Session{}, nil)
	p := r.Producer(Session{}, nil)
	require.NoError(t, Put(p, &seven{}))
	*at64(r.base, offHead) = 12345
	for Put(p, &seven{}) == nil {
	}
	require.ErrorIs(t, p.Err(), ErrCorrupt)
}

func TestHandOver(t *testing.T) {
	for _, g := range []Geometry{fixed56, {SlotSize: 64, Slots: 4, Payload: 56}, {SlotSize: 64, Slots: 1024, Payload: 56}} {
		t.Run(fmt.Sprint(g.Slots), func(t *testing.T) {
			p, c := pair(t, g, Session{})
			const n = 200_000
			go func() {
				for i := uint64(0); i < n; {
					if Put(p, &seven{i, i, i, i, i, i, i}) == nil {
						i++
					} else {
						runtime.Gosched()
					}
				}
				p.End(Finalized)
			}()
			for next := uint64(0); ; {
				var v seven
				if _, ok := Get(c, &v); ok {
					require.Equal(t, seven{next, next, next, next, next, next, next}, v)
					next++
					continue
				}
				if f, ok := c.Next(); ok {
					if f.Kind == Finalized {
						require.Equal(t, uint64(n), next)
						return
					}
					require.Equal(t, Data, f.Kind)
					require.True(t, CopyOut(&v, f.Data))
					require.Equal(t, next, v[0])
					next++
					c.Release()
				}
				c.Settle()
				runtime.Gosched()
			}
		})
	}
}

func TestNoAllocations(t *testing.T) {
	p, c := pair(t, fixed56, Session{})
	var v seven
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_ = Put(p, &v)
		Get(c, &v)
		for s := range Slots[seven](p, 4) {
			s[0]++
		}
		for s := range Each[seven](c, 4) {
			v[0] += s[0]
		}
		p.Lend(2)
		p.Publish(2)
		c.Lend(2)
		c.Release()
		c.Settle()
	}))
	pw, cw := pair(t, Geometry{SlotSize: 64, Slots: 16}, Session{})
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := pw.Reserve(100); err == nil {
			_ = pw.Commit(100, Data)
		}
		cw.Next()
		cw.Release()
		cw.Settle()
	}))
}

func TestExportAndImport(t *testing.T) {
	for _, g := range []Geometry{fixed56, {SlotSize: 32, Slots: 16}} {
		_, near := newRing(t, g)
		_, far := newRing(t, g)
		s := Session{Start: 7, Tag: 2}
		x := near.Exporter(s, nil)
		p := near.Producer(s, nil)
		c := far.Consumer(s, nil)
		q := far.Producer(s, nil)
		sent, got := 0, 0
		for round := 0; got < 500; round++ {
			for sent < 500 {
				if g.Payload != 0 {
					if Put(p, &seven{uint64(sent)}) != nil {
						break
					}
				} else {
					b, err := p.Reserve(sent % 90)
					if err != nil {
						require.ErrorIs(t, err, ErrFull)
						break
					}
					for i := range b {
						b[i] = byte(sent)
					}
					require.NoError(t, p.Commit(len(b), Data))
				}
				sent++
			}
			buf, _ := x.Append(nil, 300)
			require.NoError(t, q.Import(buf))
			for {
				f, ok := c.Next()
				if !ok {
					break
				}
				if g.Payload == 0 {
					require.Len(t, f.Data, got%90)
				}
				got++
				c.Release()
			}
			c.Settle()
			require.NoError(t, x.Credit(far.Head()))
		}
		require.True(t, p.End(Finalized))
		buf, ended := x.Append(nil, 300)
		require.True(t, ended)
		require.NoError(t, q.Import(buf))
		f, ok := c.Next()
		require.True(t, ok)
		require.Equal(t, Finalized, f.Kind)
		require.EqualValues(t, sent, x.Frames())
		require.ErrorIs(t, x.Credit(1<<40), ErrCorrupt)
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte{1, 2, 3}, true)
	f.Fuzz(func(t *testing.T, b []byte, wide bool) {
		g := fixed56
		if wide {
			g = Geometry{SlotSize: 32, Slots: 16}
		}
		p, c := pair(t, g, Session{})
		_ = p.Import(b)
		for range 64 {
			if _, ok := c.Next(); !ok {
				break
			}
			c.Release()
		}
		require.NoError(t, c.Err(), "what Import lets in is well formed")
	})
}

func FuzzOpen(f *testing.F) {
	mem := alignedBytes(fixed56.SegmentSize())
	if _, err := Format(mem, fixed56); err != nil {
		f.Fatal(err)
	}
	f.Add(mem[:64])
	f.Fuzz(func(t *testing.T, head []byte) {
		b := aligned(mem)
		copy(b[:128], head)
		r, err := Open(b)
		if err == nil {
			require.NoError(t, r.Geometry().Validate())
		}
	})
}

// FuzzConsumer writes at random into all that a producer can write.
func FuzzConsumer(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8}, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		g := []Geometry{fixed56, {SlotSize: 32, Slots: 16}, {SlotSize: 32, Slots: 16, Producers: 3}}[which%3]
		mem, r := newRing(t, g)
		var next func() (Frame, bool)
		var c *Consumer
		if g.Producers > 1 {
			col := r.Collector(Session{}, nil)
			col.Admit(1, 1)
			col.Admit(2, 1)
			c, next = &col.Consumer, col.Next
			defer col.Dead(1)
		} else {
			c = r.Consumer(Session{}, nil)
			next = c.Next
			if which >= 128 {
				next = func() (Frame, bool) {
					data, ok := c.NextData()
					return Frame{Data: data}, ok
				}
			}
		}
		for i := 0; i+9 <= len(b); i += 9 {
			off := SenderReadOnly + int(b[i])*int(b[i+1])*8%(len(mem)-SenderReadOnly-8)&^7
			w := *(*[8]byte)(b[i+1 : i+9])
			copy(mem[off:], w[:])
			if i%2 == 0 { // a word that would match
				pos := c.Position()
				*(*uint64)(r.slot(pos)) = word(pos, high(0, Kind(b[i]%16)))
			}
			if f, ok := next(); ok {
				for _, x := range f.Data {
					_ = x
				}
				c.Release()
			}
			c.Settle()
		}
	})
}
