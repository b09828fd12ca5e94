// Package shm is memory that rings can live in, and how to sleep beside it:
// sealed memfds, heap and file segments behind one small interface, a pool that
// prepares them ahead, doorbells that Go's netpoller can wait on, futexes for
// the hot, and the barrier that lets the awake side do without fences.
//
// It knows nothing of rings or streams.
package shm

import "errors"

// The errors of this package, each wrapped with the value and what to do.
var (
	// ErrLimit is a limit of the system: which, and how to raise it.
	ErrLimit = errors.New("shm: limit reached")
	// ErrSize is a size that no segment can have.
	ErrSize = errors.New("shm: impossible size")
	// ErrWrongSize is a descriptor or file of another size than was agreed.
	ErrWrongSize = errors.New("shm: segment has another size")
	// ErrNotSealed is a descriptor whose memory its owner could take away.
	ErrNotSealed = errors.New("shm: not a sealed memfd")
	// ErrNotBell is a descriptor that is no bell's.
	ErrNotBell = errors.New("shm: not a pipe")
	// ErrRefused is a file that is not safe to map.
	ErrRefused = errors.New("shm: file refused")
	// ErrUnsupported is what this system cannot do.
	ErrUnsupported = errors.New("shm: not supported on this system")
	// ErrClosed is a bell or pool that was closed.
	ErrClosed = errors.New("shm: closed")
)
