package ring

import (
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/order"
)

var many = Geometry{SlotSize: 64, Slots: 64, Producers: 4}

// group is a ring with several producers, all of them members.
type group struct {
	r *Ring
	c *Collector
	p []*Claimer // by record, from 1
}

func newGroup(t *testing.T, g Geometry) *group {
	_, r := newRing(t, g)
	s := Session{Tag: 3}
	x := &group{r: r, c: r.Collector(s, nil), p: make([]*Claimer, g.Producers+1)}
	for i := 1; i <= g.Producers; i++ {
		require.True(t, x.c.Admit(i, uint32(i)))
		p, err := r.Claimer(s, i, uint32(i), nil)
		require.NoError(t, err)
		x.p[i] = p
	}
	return x
}

// offer makes the join word what it is when the record has been offered.
func (x *group) offer(record int, generation uint32) {
	order.Publish((*uint64)(unsafe.Add(x.r.recordAt(record), recJoin)), joinWord(joinOffered, generation))
}

// send commits a frame of n bytes of the record.
func (x *group) send(t *testing.T, record, n int) {
	b, err := x.p[record].Reserve(n)
	require.NoError(t, err)
	for i := range b {
		b[i] = byte(record)
	}
	require.NoError(t, x.p[record].Commit(n, Data))
}

// expect receives a frame of the record.
func (x *group) expect(t *testing.T, record int, kind Kind) {
	t.Helper()
	f, ok := x.c.Next()
	require.True(t, ok, "nothing to receive; err %v", x.c.Err())
	require.Equal(t, kind, f.Kind)
	require.Equal(t, record, f.Record)
	for _, b := range f.Data {
		require.Equal(t, byte(record), b)
	}
	x.c.Release()
}

func (x *group) nothing(t *testing.T) {
	t.Helper()
	f, ok := x.c.Next()
	require.False(t, ok, "%+v", f)
	require.NoError(t, x.c.Err())
}

func TestManyProducersAtOnce(t *testing.T) {
	for _, payload := range []int{0, 48} {
		g := Geometry{SlotSize: 64, Slots: 64, Producers: 8, Payload: payload}
		x := newGroup(t, g)
		const each = 20_000
		var wg sync.WaitGroup
		for r := 1; r <= 8; r++ {
			wg.Go(func() {
				for i := uint64(0); i < each; {
					if payload != 0 {
						v := [6]uint64{i, uint64(r)}
						if PutShared(x.p[r], &v) != nil {
							runtime.Gosched()
							continue
						}
						i++
						continue
					}
					b, err := x.p[r].Reserve(int(16 + i*13%200))
					if err != nil {
						runtime.Gosched()
						continue
					}
					*(*[2]uint64)(unsafe.Pointer(&b[0])) = [2]uint64{i, uint64(r)}
					if x.p[r].Commit(len(b), Data) != nil {
						return
					}
					i++
				}
				x.p[r].End(Finalized)
			})
		}
		next, ended := make([]uint64, 9), 0
		for ended < 8 {
			f, ok := x.c.Next()
			if !ok {
				require.NoError(t, x.c.Err())
				x.c.Settle()
				runtime.Gosched()
				continue
			}
			if f.Kind == Finalized {
				require.Equal(t, uint64(each), next[f.Record])
				ended++
				continue
			}
			v := *(*[2]uint64)(unsafe.Pointer(&f.Data[0]))
			require.Equal(t, [2]uint64{next[f.Record], uint64(f.Record)}, v)
			next[f.Record]++
			x.c.Release()
		}
		wg.Wait()
		require.Zero(t, x.c.Members())
		require.Zero(t, x.c.Refused()+x.c.Skipped())
	}
}

func TestStrangersAndEarlierGenerationsAreRefused(t *testing.T) {
	x := newGroup(t, many)
	_, err := x.r.Claimer(Session{Tag: 3}, 1, 77, nil)
	require.ErrorIs(t, err, ErrRevoked, "nobody has admitted it")
	x.offer(1, 77)
	old, err := x.r.Claimer(Session{Tag: 3}, 1, 77, nil)
	require.NoError(t, err)
	x.p[1] = old
	x.send(t, 1, 5)
	x.send(t, 2, 5)
	x.expect(t, 2, Data)
	require.Equal(t, uint64(1), x.c.Refused())
	require.False(t, x.c.Admit(2, 9), "it is a member")
	_, err = x.r.Claimer(Session{}, 5, 1, nil)
	require.ErrorIs(t, err, ErrGeometry)
}

// A record whose holder has ended is another's at once, although nothing of
// either was read yet: frames and ends come in order, each of its own holder.
func TestRecordIsFreeOnceItsHolderHasEnded(t *testing.T) {
	x := newGroup(t, many)
	for gen := uint32(10); gen < 20; gen++ {
		x.send(t, 1, 5)
		x.send(t, 2, 5)
		require.False(t, x.c.Admit(1, gen), "its holder has not ended")
		require.True(t, x.p[1].End(Detached))
		require.True(t, x.c.Admit(1, gen))
		p, err := x.r.Claimer(Session{Tag: 3}, 1, gen, nil)
		require.NoError(t, err)
		x.p[1] = p
	}
	require.Equal(t, many.Producers+10, x.c.Members())
	data, ended := map[uint16]int{}, 0
	for {
		f, ok := x.c.Next()
		if !ok {
			break
		}
		switch {
		case f.Record != 1:
		case f.Kind == Detached:
			require.Equal(t, 1, data[f.Generation], "generation %d", f.Generation)
			delete(data, f.Generation)
			ended++
		default:
			data[f.Generation]++
		}
		x.c.Release()
	}
	require.Equal(t, 10, ended)
	require.Empty(t, data)
	require.Zero(t, x.c.Refused())
	require.Equal(t, many.Producers, x.c.Members())
	// The last holder is a member as any other, and its death is told.
	x.send(t, 1, 5)
	x.c.Dead(1)
	x.expect(t, 1, Data)
	x.expect(t, 1, Dropped)
}

// The states that a claimer can die in; each test is named after one. The
// claimer is stopped there by doing the steps before it by hand.

func (x *group) intend(record int, pos, slots, prev uint64) {
	rec := x.r.recordAt(record)
	*(*uint64)(unsafe.Add(rec, recIntentInfo)) = slots | prev<<32
	*(*uint64)(unsafe.Add(rec, recIntentPos)) = pos + 1
}

func (x *group) swap(record int, end uint64) {
	*at64(x.r.base, offTail) = end | uint64(record)<<tailRecordShift
}

func (x *group) tail() uint64 { return *at64(x.r.base, offTail) & posMask }

func TestDeadBeforeItsIntent(t *testing.T) {
	x := newGroup(t, many)
	x.send(t, 1, 5)
	x.c.Dead(1)
	x.send(t, 2, 5)
	x.expect(t, 1, Data)
	x.expect(t, 2, Data)
	x.expect(t, 1, Dropped)
	x.nothing(t)
}

func TestDeadAfterItsIntent(t *testing.T) {
	x := newGroup(t, many)
	x.intend(1, 0, 3, 0)
	x.c.Dead(1)
	x.expect(t, 1, Dropped)
	x.send(t, 2, 5)
	x.expect(t, 2, Data)
	require.Zero(t, x.c.Skipped())
}

func TestDeadAfterItsClaim(t *testing.T) {
	x := newGroup(t, many)
	_, err := x.p[1].Reserve(150)
	require.NoError(t, err)
	x.send(t, 2, 5)
	x.nothing(t) // the claim may still be committed
	x.c.Dead(1)
	x.expect(t, 1, Dropped)
	x.expect(t, 2, Data)
	require.Equal(t, uint64(3), x.c.Skipped())
	for range 200 { // the skipped slots serve again
		x.send(t, 3, 150)
		x.expect(t, 3, Data)
		x.c.Settle()
	}
}

func TestDeadWithItsPayloadWritten(t *testing.T) {
	x := newGroup(t, many)
	b, err := x.p[1].Reserve(150)
	require.NoError(t, err)
	for i := 0; i+8 <= len(b); i += 8 { // payload that imitates commit words
		*(*uint64)(unsafe.Pointer(&b[i])) = word(uint64(i+wideHeader)/64+64, high(3, Data))
	}
	x.c.Dead(1)
	x.expect(t, 1, Dropped)
	for range 62 {
		x.send(t, 2, 5)
		x.expect(t, 2, Data)
		x.c.Settle()
	}
	x.nothing(t)
}

func TestDeadWithASecondFrameBehindTheFirst(t *testing.T) {
	x := newGroup(t, many)
	x.send(t, 1, 5)
	_, err := x.p[1].Reserve(5)
	require.NoError(t, err)
	x.send(t, 2, 5)
	x.c.Dead(1)
	x.expect(t, 1, Data)
	x.expect(t, 1, Dropped)
	x.expect(t, 2, Data)
}

func TestDeadLoserBesideALivingWinner(t *testing.T) {
	x := newGroup(t, many)
	x.intend(1, 0, 7, 0)
	_, err := x.p[2].Reserve(5)
	require.NoError(t, err)
	x.c.Dead(1)
	x.nothing(t)
	require.NoError(t, x.p[2].Commit(5, Data))
	f, ok := x.c.Next()
	require.True(t, ok)
	require.Equal(t, 2, f.Record)
}

func TestDeadWinnerBesideALivingLoser(t *testing.T) {
	x := newGroup(t, many)
	_, err := x.p[1].Reserve(5)
	require.NoError(t, err)
	x.intend(2, 0, 7, 0)
	x.c.Dead(1)
	x.expect(t, 1, Dropped) // the tail tells who has won
	require.Equal(t, uint64(1), x.c.Skipped())
	x.send(t, 2, 5)
	x.expect(t, 2, Data)
}

func TestTwoDeadAtOnePosition(t *testing.T) {
	for name, c := range map[string]struct {
		witness func(x *group)
		skipped uint64
	}{
		"equal lengths": {func(x *group) { x.intend(2, 0, 3, 0); x.swap(1, 3) }, 3},
		"the tail tells": {func(x *group) {
			x.intend(2, 0, 5, 0)
			x.swap(1, 3)
		}, 3},
		"the next intent tells": {func(x *group) {
			x.intend(2, 0, 5, 0)
			x.intend(3, 3, 2, 1)
			x.swap(3, 5)
			x.c.Dead(3)
		}, 5},
		"the next frame tells": {func(x *group) {
			x.intend(2, 0, 5, 0)
			x.swap(1, 3)
			b, err := x.p[3].Reserve(5)
			if err != nil {
				panic(err)
			}
			_ = x.p[3].Commit(len(b), Data)
			x.p[3].End(Finalized)
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			x := newGroup(t, many)
			x.intend(1, 0, 3, 0)
			c.witness(x)
			x.c.Dead(1)
			x.c.Dead(2)
			end := x.tail()
			for x.c.Position() != end {
				f, ok := x.c.Next()
				require.True(t, ok, "stuck at %d", x.c.Position())
				_ = f
				x.c.Release()
			}
			require.Equal(t, c.skipped, x.c.Skipped())
		})
	}
}

func TestExpelledSenderKeepsItsClaim(t *testing.T) {
	x := newGroup(t, many)
	_, err := x.p[1].Reserve(5)
	require.NoError(t, err)
	x.send(t, 2, 5)
	x.c.Expel(1)
	x.nothing(t)
	require.False(t, x.c.Admit(1, 9))
	require.NoError(t, x.p[1].Commit(5, Data)) // it has woken up
	f, ok := x.c.Next()
	require.True(t, ok)
	require.Equal(t, 1, f.Record)
	x.c.Release()
	x.expect(t, 2, Data)
	x.expect(t, 1, Dropped)
	x.c.Dead(1)
	require.True(t, x.c.Admit(1, 9))
}

func TestGivenUpReservation(t *testing.T) {
	x := newGroup(t, many)
	_, err := x.p[1].Reserve(100)
	require.NoError(t, err)
	x.p[1].Seal()
	x.p[1].Abandon()
	require.ErrorIs(t, x.p[1].Commit(100, Data), ErrMisuse)
	require.True(t, x.p[1].End(Dropped))
	x.send(t, 2, 5)
	f, ok := x.c.Next()
	require.True(t, ok)
	require.Contains(t, []int{1, 2}, f.Record)
}
