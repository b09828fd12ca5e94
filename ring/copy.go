package ring

import "unsafe"

// words4 is small enough for the compiler to hold in registers, so that it is
// copied by 8-byte moves and not by wider ones.
type words4 struct{ a, b, c, d uint64 }

// copyWords copies *src to *dst by 8-byte words where the size permits. The
// size is a constant of each instance, so that only the moves remain.
func copyWords[T any](dst, src *T) {
	n := unsafe.Sizeof(*dst)
	if n%8 != 0 || n > 128 {
		*dst = *src
		return
	}
	// Both point to n bytes, and no byte from n on is touched.
	d, s := unsafe.Pointer(dst), unsafe.Pointer(src)
	for i := uintptr(0); i+32 <= n; i += 32 {
		*(*words4)(unsafe.Add(d, i)) = *(*words4)(unsafe.Add(s, i))
	}
	for i := n &^ 31; i < n; i += 8 {
		*(*uint64)(unsafe.Add(d, i)) = *(*uint64)(unsafe.Add(s, i))
	}
}
