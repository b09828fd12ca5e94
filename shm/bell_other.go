//go:build !linux

package shm

import "fmt"

// NewBell needs Linux.
func NewBell() (Bell, error) {
	return nil, fmt.Errorf("%w: a bell of several processes needs Linux", ErrUnsupported)
}

// OpenBell needs Linux.
func OpenBell(int) (Bell, error) {
	return nil, fmt.Errorf("%w: a bell of several processes needs Linux", ErrUnsupported)
}
