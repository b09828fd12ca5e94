package ring

import "errors"

// The errors of this package; each is wrapped with the value that was wrong.
var (
	// ErrGeometry is an impossible geometry, asked for or found in a header.
	ErrGeometry = errors.New("ring: impossible geometry")
	// ErrLayout is memory that holds no ring of this version of the layout.
	ErrLayout = errors.New("ring: not a ring of this layout")
	// ErrCorrupt is a word in the segment that no honest peer writes.
	ErrCorrupt = errors.New("ring: corrupt segment")
	// ErrRevoked is a record that the consumer has taken back, or given to another,
	// before its claimer had joined.
	ErrRevoked = errors.New("ring: record revoked")
	// ErrFull is a ring without room for the frame at this moment.
	ErrFull = errors.New("ring: full")
	// ErrTooLarge is a frame that this ring can never hold.
	ErrTooLarge = errors.New("ring: frame larger than the ring's largest")
	// ErrClosed is a ring that the other side, or this side, has closed.
	ErrClosed = errors.New("ring: closed")
	// ErrMisuse is a call that the protocol of the type forbids, such as a
	// second reservation before the first is committed.
	ErrMisuse = errors.New("ring: misuse")
)
