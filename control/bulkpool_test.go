package control

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBulkPool(t *testing.T) {
	var p bulkPool
	for _, n := range []int{0, 1, 2, 3, 4096, 4097, 128 << 10, 128<<10 + 21, 1 << maxBulkBits, 1<<maxBulkBits + 1} {
		b := p.Get(n)
		require.Len(t, *b, n)
		if n <= 1<<maxBulkBits {
			require.Less(t, cap(*b), 2*max(n, 1)) // what is kept is at most twice what is used
		}
		*b = (*b)[:0] // a prefix comes back
		p.Put(b)
		again := p.Get(n)
		require.Len(t, *again, n)
		p.Put(again)
	}
	// A buffer of another origin must not be lent for more than it has.
	foreign := make([]byte, 100)
	p.Put(&foreign)
	require.Len(t, *p.Get(128), 128)
	require.Zero(t, testing.AllocsPerRun(100, func() { p.Put(p.Get(128<<10 + 21)) }))
}
