package ring

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// alignedBytes is zeroed memory at the start of a page.
func alignedBytes(n int) []byte {
	mem := make([]byte, n+pageSize)
	off := -int(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) & (pageSize - 1)
	return mem[off : off+n : off+n]
}

// aligned copies bytes to the start of a page.
func aligned(b []byte) []byte {
	mem := alignedBytes(len(b))
	copy(mem, b)
	return mem
}

// newRing formats a ring on the heap.
func newRing(t testing.TB, g Geometry) ([]byte, *Ring) {
	mem := alignedBytes(g.SegmentSize())
	r, err := Format(mem, g)
	require.NoError(t, err)
	return mem, r
}
