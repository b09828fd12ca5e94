package novastream

import (
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
)

// The errors of this package, one a condition, wrapped with the handle and what
// was tried; use errors.Is. Those of an attach keep their identity when the
// receiver is in another process.
var (
	// ErrFull: the ring has no room now; the item is still the caller's.
	ErrFull = fault.Full
	// ErrEmpty: there is nothing to receive now.
	ErrEmpty = fault.Empty
	// ErrClosed: this end was closed, or has ended the session.
	ErrClosed = fault.Closed
	// ErrCancelled: the receiver has cancelled or stopped the stream; the
	// reason is found with errors.As and *CancelError.
	ErrCancelled = fault.Cancelled
	// ErrPeerDead: the other side's process has gone, or has closed its end
	// without saying an end.
	ErrPeerDead = fault.PeerDead
	// ErrAlreadyAttached: an exclusive stream has a sender.
	ErrAlreadyAttached = fault.AlreadyAttached
	// ErrNoSuchStream: the worker is unknown, or never had this stream.
	ErrNoSuchStream = fault.NoSuchStream
	// ErrBadHandle: the handle is garbled, or all zero.
	ErrBadHandle = fault.BadHandle
	// ErrStaleHandle: the handle's stream is over.
	ErrStaleHandle = fault.StaleHandle
	// ErrOtherWorker: the handle reached a worker that did not make it.
	ErrOtherWorker = fault.OtherWorker
	// ErrTypeMismatch: sender and receiver mean different payloads.
	ErrTypeMismatch = fault.TypeMismatch
	// ErrTooManySenders: a shared stream has as many senders as it takes.
	ErrTooManySenders = fault.TooManySenders
	// ErrLaneUnavailable: no lane that was asked for can be had, and why.
	ErrLaneUnavailable = fault.LaneUnavailable
	// ErrFrameTooLarge: the frame can never fit the stream's ring.
	ErrFrameTooLarge = fault.FrameTooLarge
	// ErrTimeout: nobody attached in time, or the sender was silent too long.
	ErrTimeout = fault.Timeout
	// ErrCorrupt: the peer has written what no honest peer writes.
	ErrCorrupt = fault.Corrupt
	// ErrLimit: a limit of the system or of this node, and how to raise it.
	ErrLimit = fault.Limit
	// ErrTransport: what carries the frames has failed.
	ErrTransport = fault.Transport
	// ErrFinalized: the stream was ended and takes no sender any more.
	ErrFinalized = fault.Finalized
	// ErrMisuse: a call that the end's state forbids, such as a second
	// reservation before the first is committed.
	ErrMisuse = fault.Misuse
	// ErrDecode: a frame's bytes are no value of the payload.
	ErrDecode = fault.Decode
	// ErrConfig: an option, or a combination of options, that cannot be.
	ErrConfig = fault.Config
)

// CancelError is an ErrCancelled with the receiver's reason.
type CancelError = fault.CancelError

// TimeoutError is an ErrTimeout with what was waited for, and how long.
type TimeoutError = stream.TimeoutError
