// Package fault holds the errors of the streaming layer, one sentinel a
// condition, where both the public package and its internals can reach them.
// The public names and their documentation are novastream's.
package fault

import (
	"errors"
	"fmt"

	"github.com/novastream/novastream/control"
)

// The sentinels; see novastream's variables of the same names.
var (
	ErrFull            = errors.New("novastream: ring full")
	ErrEmpty           = errors.New("novastream: nothing to receive")
	ErrClosed          = errors.New("novastream: closed")
	ErrCancelled       = errors.New("novastream: cancelled by the receiver")
	ErrPeerDead        = errors.New("novastream: peer is gone")
	ErrAlreadyAttached = errors.New("novastream: another sender is attached")
	ErrNoSuchStream    = errors.New("novastream: no such stream")
	ErrBadHandle       = errors.New("novastream: not a handle")
	ErrStaleHandle     = errors.New("novastream: stale handle")
	ErrOtherWorker     = errors.New("novastream: handle of another worker")
	ErrTypeMismatch    = errors.New("novastream: payload types differ")
	ErrTooManySenders  = errors.New("novastream: too many senders")
	ErrLaneUnavailable = errors.New("novastream: lane unavailable")
	ErrFrameTooLarge   = errors.New("novastream: frame too large")
	ErrTimeout         = errors.New("novastream: timed out")
	ErrCorrupt         = errors.New("novastream: corrupt data from the peer")
	ErrLimit           = errors.New("novastream: limit reached")
	ErrTransport       = errors.New("novastream: transport failed")
	ErrFinalized       = errors.New("novastream: stream is finalized")
	ErrMisuse          = errors.New("novastream: misuse")
	ErrDecode          = errors.New("novastream: frame cannot be decoded")
	ErrConfig          = errors.New("novastream: impossible option")
)

// Those that travel in an answer keep their identity on the other side.
func init() {
	for code, err := range map[string]error{
		"nova.stream.cancelled": ErrCancelled, "nova.stream.closed": ErrClosed,
		"nova.stream.already_attached": ErrAlreadyAttached, "nova.stream.no_such_stream": ErrNoSuchStream,
		"nova.stream.bad_handle": ErrBadHandle, "nova.stream.stale_handle": ErrStaleHandle,
		"nova.stream.other_worker": ErrOtherWorker, "nova.stream.type_mismatch": ErrTypeMismatch,
		"nova.stream.too_many_senders": ErrTooManySenders, "nova.stream.lane_unavailable": ErrLaneUnavailable,
		"nova.stream.corrupt": ErrCorrupt, "nova.stream.misuse": ErrMisuse,
		"nova.stream.limit": ErrLimit, "nova.stream.finalized": ErrFinalized, "nova.stream.timeout": ErrTimeout,
	} {
		control.RegisterError(code, err)
	}
}

// CancelError is a cancellation with its reason; it is ErrCancelled.
type CancelError struct{ Reason string }

func (e *CancelError) Error() string {
	if e.Reason == "" {
		return ErrCancelled.Error()
	}
	return fmt.Sprintf("%v: %s", ErrCancelled, e.Reason)
}

// Is makes errors.Is(err, ErrCancelled) hold.
func (e *CancelError) Is(target error) bool { return target == ErrCancelled }
