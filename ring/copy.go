package ring

import "unsafe"

// Structs of up to four words, which the compiler holds in registers: they are
// copied by 8-byte moves and not by wider ones.
type (
	words2 struct{ a, b uint64 }
	words3 struct{ a, b, c uint64 }
	words4 struct{ a, b, c, d uint64 }
)

// The copy by words is in pieces, each small enough to be inlined: Put has them
// one after another. The size is a constant of each instance, so that only the
// moves remain. In each, d and s point to as many bytes as a T has, and no byte
// behind them is touched.

// byWords tells whether a T is copied by words.
func byWords[T any](*T) bool {
	return unsafe.Sizeof(*new(T))%8 == 0 && unsafe.Sizeof(*new(T)) <= 128
}

func copyFirst[T any](d, s unsafe.Pointer, _ *T) {
	if unsafe.Sizeof(*new(T)) >= 32 {
		*(*words4)(d) = *(*words4)(s)
	}
	if unsafe.Sizeof(*new(T)) >= 64 {
		*(*words4)(unsafe.Add(d, 32)) = *(*words4)(unsafe.Add(s, 32))
	}
}

func copySecond[T any](d, s unsafe.Pointer, _ *T) {
	if unsafe.Sizeof(*new(T)) >= 96 {
		*(*words4)(unsafe.Add(d, 64)) = *(*words4)(unsafe.Add(s, 64))
	}
	if unsafe.Sizeof(*new(T)) >= 128 {
		*(*words4)(unsafe.Add(d, 96)) = *(*words4)(unsafe.Add(s, 96))
	}
}

func copyRest[T any](d, s unsafe.Pointer, _ *T) {
	at := unsafe.Sizeof(*new(T)) &^ 31
	switch unsafe.Sizeof(*new(T)) & 31 {
	case 8:
		*(*uint64)(unsafe.Add(d, at)) = *(*uint64)(unsafe.Add(s, at))
	case 16:
		*(*words2)(unsafe.Add(d, at)) = *(*words2)(unsafe.Add(s, at))
	case 24:
		*(*words3)(unsafe.Add(d, at)) = *(*words3)(unsafe.Add(s, at))
	}
}
