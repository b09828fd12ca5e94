package bench

import "unsafe"

// sumWords reads all of b, as fast as Go can without vectors: 8 words a turn,
// which is what the compiler needs to see that no bound is passed.
func sumWords(b []byte) uint64 {
	// Frames lie 16 bytes into a slot: aligned for words.
	w := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
	var s0, s1, s2, s3 uint64
	for len(w) >= 8 {
		s0 += w[0] + w[4]
		s1 += w[1] + w[5]
		s2 += w[2] + w[6]
		s3 += w[3] + w[7]
		w = w[8:]
	}
	return s0 + s1 + s2 + s3
}
