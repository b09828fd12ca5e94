//go:build !linux

package shm

import "fmt"

// NewMemfd needs Linux.
func NewMemfd(int) (Segment, error) { return nil, fmt.Errorf("%w: memfd needs Linux", ErrUnsupported) }

// OpenMemfd needs Linux.
func OpenMemfd(int, int, int) (Segment, error) {
	return nil, fmt.Errorf("%w: memfd needs Linux", ErrUnsupported)
}
