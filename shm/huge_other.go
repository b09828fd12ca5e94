//go:build !linux

package shm

import "fmt"

// NewHuge is not available here.
func NewHuge(int) (Segment, error) {
	return nil, fmt.Errorf("%w: memfd needs Linux", ErrUnsupported)
}

// HugeBytes is not available here.
func HugeBytes(Segment) (int64, error) {
	return 0, fmt.Errorf("%w: huge pages need Linux", ErrUnsupported)
}

// HugeRemedy says that.
func HugeRemedy(int) string { return "only Linux has them" }
