package soft

import (
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/internal/order"
)

// page is the alignment of regions.
const page = 4096

// wordwise is up to how many bytes a range of whole aligned words is moved word by
// word.
const wordwise = 64

// newMemory is zeroed memory that begins on a page. It is on the heap, so that the
// race detector sees what is done to it; the heap does not move.
func newMemory(size int) []byte {
	b := make([]byte, size+page)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (page - 1)
	return b[skip : skip+size : skip+size]
}

// words is b as 64-bit words, nil unless b is few whole aligned ones. The result
// has b's own bounds, so the accesses below stay inside of it.
func words(b []byte) []uint64 {
	if len(b) == 0 || len(b)%8 != 0 || len(b) > wordwise {
		return nil
	}
	p := unsafe.Pointer(&b[0])
	if uintptr(p)%8 != 0 {
		return nil
	}
	return unsafe.Slice((*uint64)(p), len(b)/8)
}

// bytesOf is a word as the bytes that it has in memory.
func bytesOf(w *uint64) []byte { return (*[8]byte)(unsafe.Pointer(w))[:] }

// copyIn writes src into registered memory. Small aligned ranges are stored a
// whole word after the other, each with release semantics, because somebody may
// be polling one of them.
func copyIn(dst, src []byte) {
	ws := words(dst)
	if ws == nil {
		copy(dst, src)
		return
	}
	for i := range ws {
		var w uint64
		copy(bytesOf(&w), src[8*i:])
		order.Publish(&ws[i], w)
	}
}

// copyOut reads registered memory, small aligned ranges word by word: they may be
// words that somebody stores atomically.
func copyOut(dst, src []byte) {
	ws := words(src)
	if ws == nil {
		copy(dst, src)
		return
	}
	for i := range ws {
		w := atomic.LoadUint64(&ws[i])
		copy(dst[8*i:], bytesOf(&w))
	}
}
