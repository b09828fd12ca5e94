package ring

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/order"
)

// Who is expelled before it has joined gives its record free at once, also while
// nobody has read that far; coming late it is refused, whoever has the record then.
func TestARecordThatNobodyHasJoinedIsFreeWhenRevoked(t *testing.T) {
	_, r := newRing(t, many)
	s := Session{Tag: 3}
	x := &group{r: r, c: r.Collector(s, nil), p: make([]*Claimer, 5)}
	require.True(t, x.c.Admit(2, 1))
	var err error
	x.p[2], err = r.Claimer(s, 2, 1, nil)
	require.NoError(t, err)
	x.send(t, 2, 8)
	for gen := uint32(1); gen <= 3*1<<16; gen += 1 << 15 { // frames have but 16 bits of it
		require.True(t, x.c.Admit(1, gen), "%d", gen)
		require.False(t, x.c.Admit(1, gen+1), "it may join")
		x.c.Expel(1)
		require.False(t, x.c.Expelled(1), "nothing of it is to be waited for")
		_, err := r.Claimer(s, 1, gen, nil)
		require.ErrorIs(t, err, ErrRevoked)
		require.True(t, x.c.Admit(1, gen+1<<16))
		_, err = r.Claimer(s, 1, gen, nil)
		require.ErrorIs(t, err, ErrRevoked, "the offer is another's")
		x.c.Expel(1)
	}
	require.True(t, x.c.Admit(1, 7))
	x.p[1], err = r.Claimer(s, 1, 7, nil)
	require.NoError(t, err)
	x.send(t, 1, 8)
	dropped, data := 0, 0
	for {
		f, ok := x.c.Next()
		if !ok {
			break
		}
		switch f.Kind {
		case Dropped:
			dropped++
			require.Equal(t, 1, f.Record)
		case Data:
			data++
		}
		x.c.Release()
	}
	require.Equal(t, 12, dropped)
	require.Equal(t, 2, data)
	require.Equal(t, 2, x.c.Members())
	x.nothing(t)
}

// What nobody has offered is no record that was taken back.
func TestJoinOfWhatWasNotOffered(t *testing.T) {
	_, r := newRing(t, many)
	word := at64(r.recordAt(1), recJoin)
	for w, want := range map[uint64]error{
		0: ErrCorrupt, joinWord(joinOffered, 5): nil, joinWord(joinJoined, 5): ErrCorrupt, joinWord(joinRevoked, 5): ErrRevoked,
		joinWord(joinOffered, 6): ErrRevoked, joinWord(joinJoined, 6): ErrRevoked, joinWord(joinRevoked, 6): ErrRevoked,
		joinWord(0, 6): ErrCorrupt, joinWord(4, 5): ErrCorrupt, joinWord(joinOffered|1<<31, 5): ErrCorrupt, ^uint64(0): ErrCorrupt,
	} {
		*word = w
		c, err := r.Claimer(Session{}, 1, 5, nil)
		if want == nil {
			require.NoError(t, err)
			require.Equal(t, joinWord(joinJoined, 5), *word)
			continue
		}
		require.ErrorIs(t, err, want, "%#x", w)
		require.Nil(t, c)
		require.Equal(t, w, *word)
	}
}

// The end of one that was revoked is told without waiting for what the living have
// claimed.
func TestTheRevokedIsDroppedAtOnce(t *testing.T) {
	x := newGroup(t, many)
	require.True(t, x.p[1].End(Detached))
	require.True(t, x.c.Admit(1, 9))
	x.expect(t, 1, Detached)
	_, err := x.p[2].Reserve(8) // and never committed
	require.NoError(t, err)
	x.c.Expel(1)
	x.expect(t, 1, Dropped)
	x.c.Dead(1) // its process, later
	x.nothing(t)
	require.True(t, x.c.Admit(1, 10))
}

// Of joining and revoking exactly one succeeds.
func TestJoinOrRevoke(t *testing.T) {
	_, r := newRing(t, many)
	s := Session{Tag: 3}
	c := r.Collector(s, nil)
	const rounds = 30_000
	var offer, answer atomic.Uint32
	var p *Claimer
	go func() {
		for gen := uint32(1); gen <= rounds; gen++ {
			await(&offer, gen)
			for range gen % 31 {
				order.Load(at64(r.base, offHead))
			}
			p, _ = r.Claimer(s, 1, gen, nil)
			answer.Store(gen)
		}
	}()
	joined := 0
	for gen := uint32(1); gen <= rounds; gen++ {
		require.True(t, c.Admit(1, gen))
		offer.Store(gen)
		for range gen % 1021 {
			order.Load(at64(r.base, offHead))
		}
		c.Expel(1)
		await(&answer, gen)
		if (p != nil) != c.Expelled(1) {
			t.Fatalf("generation %d: joined %v, may hold a claim %v", gen, p != nil, c.Expelled(1))
		}
		if p != nil {
			joined++
			require.False(t, c.Admit(1, gen+1), "it may claim")
			require.True(t, p.End(Dropped))
		}
		f, ok := c.Next()
		require.True(t, ok)
		require.Equal(t, Dropped, f.Kind)
	}
	t.Logf("%d of %d have joined", joined, rounds)
}

// await spins until the other side has come so far.
func await(n *atomic.Uint32, to uint32) {
	for i := 1; n.Load() != to; i++ {
		if i%1024 == 0 {
			runtime.Gosched()
		}
	}
}

// Whatever a peer writes into the join words, the collector tells each member's end
// once, and is kept by nobody.
func TestJoinWordsOfAHostilePeer(t *testing.T) {
	_, r := newRing(t, many)
	s := Session{Tag: 3}
	c := r.Collector(s, nil)
	draw := rand.New(rand.NewPCG(1, 2))
	scribble := func(record int) {
		off := uintptr(unsafe.Pointer(r.recordAt(record))) - uintptr(r.base) + recJoin
		poke(r, off, []uint64{0, draw.Uint64(), joinWord(draw.Uint64N(5), draw.Uint32N(9)), ^uint64(0)}[draw.IntN(4)])
	}
	admitted, ended := 0, 0
	for gen := uint32(1); gen < 5000; gen++ {
		record := 1 + draw.IntN(many.Producers)
		scribble(record)
		if c.Admit(record, gen) {
			admitted++
		}
		scribble(record)
		switch draw.IntN(3) {
		case 0:
			c.Dead(record)
		case 1:
			c.Expel(record)
		}
		for {
			f, ok := c.Next()
			if !ok {
				break
			}
			require.Equal(t, Dropped, f.Kind)
			ended++
		}
		require.NoError(t, c.Err())
		require.Equal(t, admitted-ended, c.Members())
		require.LessOrEqual(t, c.Members(), many.Producers)
	}
	require.Greater(t, ended, 1000)
}
