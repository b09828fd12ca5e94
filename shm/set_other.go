//go:build !linux

package shm

import "fmt"

// Set is many bells for one who waits.
type Set struct{ Bell }

// NewSet makes an empty set.
func NewSet() (*Set, error) { return &Set{NewLocalBell()}, nil }

// Add adds a bell of this process.
func (s *Set) Add(b Bell) error {
	l, ok := b.(*localBell)
	if !ok {
		return fmt.Errorf("%w: a set of %T", ErrUnsupported, b)
	}
	l.set.Store(s)
	s.Ring()
	return nil
}

// Remove removes a bell.
func (s *Set) Remove(b Bell) {
	if l, ok := b.(*localBell); ok {
		l.set.CompareAndSwap(s, nil)
	}
}
