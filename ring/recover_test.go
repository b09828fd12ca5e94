package ring

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/order"
)

// lose leaves the record as a claimer leaves it that has written its intent to
// claim n slots at pos and has lost the swap, or died before it.
func (x *group) lose(record int, pos, n uint64) {
	rec := x.r.recordAt(record)
	order.Publish((*uint64)(unsafe.Add(rec, recIntentInfo)), n)
	order.Publish((*uint64)(unsafe.Add(rec, recIntentPos)), pos+1)
}

// The collector finds no frame; then its winner commits and claims anew, and
// then the collector looks at the records: only the dead loser's names the
// position. See FALLBACK in docs/model/mpsc.pml.
func TestAWinnerThatHasGoneOnIsNotSkipped(t *testing.T) {
	x := newGroup(t, many)
	x.lose(1, 0, 1)
	x.c.Dead(1)
	x.send(t, 2, 8)
	x.send(t, 2, 8)
	require.False(t, x.c.lost(0))
	x.expect(t, 2, Data)
	x.expect(t, 2, Data)
	x.expect(t, 1, Dropped)
	require.Zero(t, x.c.Skipped())
}

// The Pad behind a frame that is shorter than its claim stands where no claim
// has ended. See PAD_PREV in docs/model/mpsc.pml.
func TestAPadIsNoProofOfAClaim(t *testing.T) {
	x := newGroup(t, many)
	x.send(t, 1, 8)
	x.lose(1, 1, 1)
	x.c.Dead(1)
	b, err := x.p[2].Reserve(100) // two slots
	require.NoError(t, err)
	require.NoError(t, x.p[2].Commit(copy(b, "\x02\x02"), Data))
	x.expect(t, 1, Data)
	require.False(t, x.c.lost(1), "the slot is the living claimer's")
	x.expect(t, 2, Data)
	x.expect(t, 1, Dropped)
}

// An expelled sender keeps its claim while it may live, also after its end was
// told; its death frees the slots, and a sleeping collector is ready for that.
func TestAnExpelledClaimerThatDiesLater(t *testing.T) {
	x := newGroup(t, many)
	x.c.Expel(1) // nothing is claimed: its end is told at once
	x.expect(t, 1, Dropped)
	_, err := x.p[1].Reserve(8)
	require.NoError(t, err)
	x.send(t, 2, 8)
	x.nothing(t)
	require.False(t, x.c.Ready())
	x.c.Dead(1)
	require.True(t, x.c.Ready())
	x.expect(t, 2, Data)
	require.Equal(t, uint64(1), x.c.Skipped())
}

// Frames that are lent while slots behind them are skipped still have their
// later slots cleared when they are released.
func TestASkipLeavesLentFramesToBeCleared(t *testing.T) {
	x := newGroup(t, many)
	b, err := x.p[1].Reserve(100) // slots 0 and 1
	require.NoError(t, err)
	*(*uint64)(unsafe.Pointer(&b[48])) = word(1+64, high(3, Data)) // what a frame a lap later begins with
	require.NoError(t, x.p[1].Commit(len(b), Data))
	_, err = x.p[2].Reserve(8)
	require.NoError(t, err)
	x.c.Dead(2)
	x.send(t, 3, 8)
	f, ok := x.c.Next()
	require.True(t, ok)
	require.Equal(t, 1, f.Record)
	f, ok = x.c.Next()
	require.True(t, ok)
	require.Equal(t, Dropped, f.Kind)
	f, ok = x.c.Next()
	require.True(t, ok)
	require.Equal(t, 3, f.Record)
	require.Equal(t, uint64(1), x.c.Skipped())
	x.c.Release()
	require.Zero(t, *(*uint64)(x.r.slot(1)))
}

// A loop that goes on after its sender was closed, and never ends, leaves frames
// behind the end: the consumer gets them, and then the end that it has passed.
func TestAnEndThatTheConsumerHasPassed(t *testing.T) {
	_, r := newRing(t, Geometry{SlotSize: 16, Slots: 16, Payload: 8})
	s := Session{Tag: 7}
	c := r.Consumer(s, nil)
	p := r.Producer(s, nil)
	n := 0
	for v := range Slots[uint64](p, 3) {
		*v = uint64(n)
		switch n++; n {
		case 1:
			p.Seal()
			p.Abort(Dropped, func() {})
		case 3: // as if it stood here for ever
			for range 2 {
				f, ok := c.Next()
				require.True(t, ok)
				require.Equal(t, Data, f.Kind)
				c.Release()
			}
			require.True(t, c.Ready())
			f, ok := c.Next()
			require.True(t, ok)
			require.Equal(t, Dropped, f.Kind)
		}
	}
	require.Equal(t, 3, n)
}

// A dead member's record is given to another before the collector has come to its
// end: its frames, its open claim and its Dropped are still its own.
func TestARecordOfTheDeadIsGivenAtOnce(t *testing.T) {
	x := newGroup(t, many)
	x.send(t, 2, 8)
	x.send(t, 1, 8)
	_, err := x.p[1].Reserve(100) // two slots, never committed
	require.NoError(t, err)
	x.send(t, 2, 8)
	require.False(t, x.c.Admit(1, 9), "it may live")
	x.c.Dead(1)
	require.True(t, x.c.Admit(1, 9))
	heir, err := x.r.Claimer(Session{Tag: 3}, 1, 9, nil)
	require.NoError(t, err)
	x.p[1] = heir
	x.send(t, 1, 8)
	x.expect(t, 2, Data)
	for _, want := range []struct {
		record int
		gen    uint16
		kind   Kind
	}{{1, 1, Data}, {1, 1, Dropped}, {2, 2, Data}, {1, 9, Data}} {
		f, ok := x.c.Next()
		require.True(t, ok)
		require.Equal(t, want.kind, f.Kind)
		require.Equal(t, want.record, f.Record)
		require.Equal(t, want.gen, f.Generation)
		x.c.Release()
	}
	require.Equal(t, uint64(2), x.c.Skipped())
	x.nothing(t)
	require.Empty(t, x.c.left)
}

// The heir of a dead loser's record claims so that its claim ends where the dead
// one's would have: the slots of a living claimer between them are not skipped.
func TestAnHeirIsNoProofOfTheDeadsClaim(t *testing.T) {
	x := newGroup(t, many)
	x.lose(1, 0, 2)
	_, err := x.p[2].Reserve(8) // has won position 0, and lives
	require.NoError(t, err)
	x.c.Dead(1)
	require.True(t, x.c.Admit(1, 9))
	heir, err := x.r.Claimer(Session{Tag: 3}, 1, 9, nil)
	require.NoError(t, err)
	x.p[1] = heir
	_, err = heir.Reserve(8) // position 1: the tail is 2 and names record 1
	require.NoError(t, err)
	f, ok := x.c.Next()
	require.True(t, !ok || f.Kind == Dropped, "%+v", f)
	require.Zero(t, x.c.Skipped(), "a living claimer's slot was skipped")
}

// Who was expelled alive, claims after that, and dies: its record is another's by
// then, and its claim is skipped all the same.
func TestAClaimOfOneThatWasExpelledBefore(t *testing.T) {
	x := newGroup(t, many)
	x.c.Expel(1)
	x.expect(t, 1, Dropped)
	_, err := x.p[1].Reserve(8)
	require.NoError(t, err)
	x.send(t, 2, 8)
	require.False(t, x.c.Admit(1, 9), "it may live")
	x.c.Dead(1)
	require.True(t, x.c.Admit(1, 9))
	x.expect(t, 2, Data)
	require.Equal(t, uint64(1), x.c.Skipped())
}

// Who was expelled alive gives its record free by its own end.
func TestTheExpelledMayEndInOrder(t *testing.T) {
	x := newGroup(t, many)
	x.c.Expel(1)
	x.expect(t, 1, Dropped)
	require.True(t, x.p[1].End(Dropped))
	x.nothing(t)
	require.True(t, x.c.Admit(1, 9))
	x.send(t, 2, 8)
	require.True(t, x.p[2].End(Finalized))
	x.c.Expel(2) // its connection ends before the collector comes to its end
	x.expect(t, 2, Data)
	x.expect(t, 2, Finalized)
	require.False(t, x.c.Expelled(2), "who has ended holds no claim")
	require.True(t, x.c.Admit(2, 9))
}

// A dead member's end is told where its claim was, not behind what the living have
// sent since: it had no frame there.
func TestDroppedIsToldAtTheOpenClaim(t *testing.T) {
	x := newGroup(t, many)
	_, err := x.p[1].Reserve(8)
	require.NoError(t, err)
	for range 5 {
		x.send(t, 2, 8)
	}
	x.c.Dead(1)
	x.expect(t, 1, Dropped)
	for range 5 {
		x.expect(t, 2, Data)
	}
}
