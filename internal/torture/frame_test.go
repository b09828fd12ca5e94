package torture

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A frame tells by itself whose it is, and that any of its bytes is another's.
func TestFrame(t *testing.T) {
	for _, size := range []int{frameHeader, frameHeader + 1, 100, 1 << 12, 1 << 14} {
		b := make([]byte, size)
		fill(b, ident(5, 3), 77)
		id, n, whole := read(b)
		require.True(t, whole)
		require.EqualValues(t, 77, n)
		record, ours := recordOf(id, 5)
		require.True(t, ours)
		require.Equal(t, 3, record)
		_, ours = recordOf(id, 6)
		require.False(t, ours)
		for i := range b {
			torn := slices.Clone(b)
			torn[i] ^= 1
			_, _, whole := read(torn)
			require.False(t, whole, "byte %d of %d", i, size)
		}
		_, _, whole = read(b[:size-1])
		require.False(t, whole)
		if size > 1000 { // the end of another frame's
			other := make([]byte, size)
			fill(other, ident(5, 3), 78)
			copy(other, b[:size/2])
			_, _, whole := read(other)
			require.False(t, whole)
		}
	}
	var v Value
	v.fill(1, 2)
	require.True(t, v.whole())
	w := v
	w.fill(1, 3)
	w.ID, w.Number = v.ID, v.Number
	require.False(t, w.whole())
}
