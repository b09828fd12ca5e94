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
	Full            = errors.New("novastream: ring full")
	Empty           = errors.New("novastream: nothing to receive")
	Closed          = errors.New("novastream: closed")
	Cancelled       = errors.New("novastream: cancelled by the receiver")
	PeerDead        = errors.New("novastream: peer is gone")
	AlreadyAttached = errors.New("novastream: another sender is attached")
	NoSuchStream    = errors.New("novastream: no such stream")
	BadHandle       = errors.New("novastream: not a handle")
	StaleHandle     = errors.New("novastream: stale handle")
	OtherWorker     = errors.New("novastream: handle of another worker")
	TypeMismatch    = errors.New("novastream: payload types differ")
	TooManySenders  = errors.New("novastream: too many senders")
	LaneUnavailable = errors.New("novastream: lane unavailable")
	FrameTooLarge   = errors.New("novastream: frame too large")
	Timeout         = errors.New("novastream: timed out")
	Corrupt         = errors.New("novastream: corrupt data from the peer")
	Limit           = errors.New("novastream: limit reached")
	Transport       = errors.New("novastream: transport failed")
	Finalized       = errors.New("novastream: stream is finalized")
	Misuse          = errors.New("novastream: misuse")
	Decode          = errors.New("novastream: frame cannot be decoded")
	Config          = errors.New("novastream: impossible option")
)

// Those that travel in an answer keep their identity on the other side.
func init() {
	for code, err := range map[string]error{
		"nova.stream.cancelled": Cancelled, "nova.stream.closed": Closed,
		"nova.stream.already_attached": AlreadyAttached, "nova.stream.no_such_stream": NoSuchStream,
		"nova.stream.bad_handle": BadHandle, "nova.stream.stale_handle": StaleHandle,
		"nova.stream.other_worker": OtherWorker, "nova.stream.type_mismatch": TypeMismatch,
		"nova.stream.too_many_senders": TooManySenders, "nova.stream.lane_unavailable": LaneUnavailable,
		"nova.stream.limit": Limit, "nova.stream.finalized": Finalized, "nova.stream.timeout": Timeout,
	} {
		control.RegisterError(code, err)
	}
}

// CancelError is a cancellation with its reason; it is Cancelled.
type CancelError struct{ Reason string }

func (e *CancelError) Error() string {
	if e.Reason == "" {
		return Cancelled.Error()
	}
	return fmt.Sprintf("%v: %s", Cancelled, e.Reason)
}

// Is makes errors.Is(err, Cancelled) hold.
func (e *CancelError) Is(target error) bool { return target == Cancelled }
