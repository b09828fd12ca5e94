package compress

import (
	"errors"
	"fmt"
)

// Algorithm is how a batch is encoded; its number is the batch's first byte.
type Algorithm uint8

// The algorithms.
const (
	None Algorithm = iota // as it is
	S2
	Zstd
	algorithms
)

// String is the algorithm's name.
func (a Algorithm) String() string {
	switch a {
	case None:
		return "none"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Valid tells whether it is one of the constants.
func (a Algorithm) Valid() bool { return a < algorithms }

// Set is some of the algorithms, a bit for each by its number. None is in no
// set, and allowed with each.
type Set uint8

// All is every algorithm of this build.
const All = Set(1<<S2 | 1<<Zstd)

// SetOf makes a set.
func SetOf(list []Algorithm) (s Set) {
	for _, a := range list {
		s |= 1 << a
	}
	return s & All
}

// Has tells whether a batch encoded by a may come.
func (s Set) Has(a Algorithm) bool { return a == None || a.Valid() && s>>a&1 != 0 }

// First is the first of the list that is in the set, None if there is none.
func (s Set) First(list []Algorithm) Algorithm {
	for _, a := range list {
		if s.Has(a) {
			return a
		}
	}
	return None
}

// ErrCorrupt is what Decode answers for bytes that no Append makes.
var ErrCorrupt = errors.New("compress: corrupt batch")
