package stream

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
)

func (t *table) mustPut(tb testing.TB) handle.Handle {
	slot, gen, err := t.put(new(Anchor))
	require.NoError(tb, err)
	return handle.Make(7, slot, gen)
}

// A recycled slot refuses older generations, one that never was, and slots that
// were never used.
func TestConf_02_TableGenerations(t *testing.T) {
	x := table{size: 2}
	first := x.mustPut(t)
	require.Equal(t, uint64(1), first.Generation())
	x.drop(first)
	x.drop(first) // a second time does nothing
	second := x.mustPut(t)
	require.Equal(t, first.Slot(), second.Slot())
	require.Equal(t, uint64(2), second.Generation())
	_, err := x.get(second)
	require.NoError(t, err)
	for _, c := range []struct {
		h    handle.Handle
		want error
	}{
		{first, fault.ErrStaleHandle},
		{handle.Make(7, first.Slot(), 3), fault.ErrNoSuchStream},
		{handle.Make(7, 1, 1), fault.ErrNoSuchStream},
		{handle.Make(7, 65535, 1), fault.ErrNoSuchStream},
	} {
		_, err := x.get(c.h)
		require.ErrorIs(t, err, c.want)
		require.ErrorContains(t, err, c.h.String())
	}
	x.drop(first) // a stale handle drops nothing
	_, err = x.get(second)
	require.NoError(t, err)
	x.drop(second)
	_, err = x.get(second)
	require.ErrorIs(t, err, fault.ErrStaleHandle)
	require.Zero(t, x.live)
}

// A slot that has had its last generation is never used again; when all have, or
// all are in use, that is an error.
func TestConf_02_SlotRetires(t *testing.T) {
	x := table{size: 2}
	a, b := x.mustPut(t), x.mustPut(t)
	_, _, err := x.put(new(Anchor))
	require.ErrorIs(t, err, fault.ErrLimit)
	require.ErrorContains(t, err, "2 streams are open")
	require.ErrorContains(t, err, "MaxStreams")
	require.Len(t, x.all(), 2)
	x.drop(a)
	// As if it had been used so often.
	x.slots[a.Slot()].generation = handle.MaxGeneration - 1
	last := x.mustPut(t)
	require.Equal(t, a.Slot(), last.Slot())
	require.Equal(t, uint64(handle.MaxGeneration), last.Generation())
	_, err = x.get(last)
	require.NoError(t, err)
	x.drop(last)
	_, err = x.get(last)
	require.ErrorIs(t, err, fault.ErrStaleHandle, "the last generation is over too")
	_, _, err = x.put(new(Anchor))
	require.ErrorIs(t, err, fault.ErrLimit)
	require.ErrorContains(t, err, "1 of the 2 slots", "and it is not because streams are open")
	// The other slot goes on.
	x.drop(b)
	again := x.mustPut(t)
	require.Equal(t, b.Slot(), again.Slot())
}

// A slot rests as long as it can: the one that was freed first is used first.
func TestSlotsRest(t *testing.T) {
	x := table{size: 3}
	h := []handle.Handle{x.mustPut(t), x.mustPut(t), x.mustPut(t)}
	for _, i := range []int{1, 2, 0} {
		x.drop(h[i])
	}
	for _, i := range []int{1, 2, 0} {
		require.Equal(t, h[i].Slot(), x.mustPut(t).Slot())
	}
}
