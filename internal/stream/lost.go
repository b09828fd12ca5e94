package stream

import "fmt"

// LostError is part of the error of a session whose transport failed before it
// had delivered everything.
type LostError struct {
	// Slots is how many slots of frames, the last ones sent, are not known to
	// have arrived; values of one slot each are as many values.
	Slots uint64
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the last %d slots of frames are not known to have arrived", e.Slots)
}
