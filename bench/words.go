package bench

import "encoding/binary"

// sumWords reads all of b.
func sumWords(b []byte) (sum uint64) {
	var s [4]uint64
	for len(b) >= 32 {
		s[0] += binary.LittleEndian.Uint64(b)
		s[1] += binary.LittleEndian.Uint64(b[8:])
		s[2] += binary.LittleEndian.Uint64(b[16:])
		s[3] += binary.LittleEndian.Uint64(b[24:])
		b = b[32:]
	}
	return s[0] + s[1] + s[2] + s[3]
}
