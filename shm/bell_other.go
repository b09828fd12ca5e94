//go:build !linux

package shm

import "fmt"

// NewBell needs Linux.
func NewBell() (Bell, error) { return nil, fmt.Errorf("%w: eventfd needs Linux", ErrUnsupported) }

// OpenBell needs Linux.
func OpenBell(int) (Bell, error) { return nil, fmt.Errorf("%w: eventfd needs Linux", ErrUnsupported) }
