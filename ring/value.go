package ring

import "unsafe"

// SizeOf is the bytes of a value in place.
func SizeOf[T any](v *T) int { return int(unsafe.Sizeof(*v)) }

// CopyOut makes *v of a payload, and answers false when the payload has another
// size. T must be free of pointers.
func CopyOut[T any](v *T, payload []byte) bool {
	if len(payload) != int(unsafe.Sizeof(*v)) {
		return false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(v)), len(payload)), payload)
	return true
}

// ReserveShared claims a slot for a value in place, to be published by Commit
// with its size; nil when there is none (see Claimer.Reserve).
func ReserveShared[T any](c *Claimer) *T {
	b, err := c.Reserve(int(unsafe.Sizeof(*new(T))))
	if err != nil {
		return nil
	}
	// A payload lies 16 bytes into a slot, which aligns it for any T.
	return (*T)(unsafe.Pointer(unsafe.SliceData(b)))
}
