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
	ErrFull = fault.ErrFull
	// ErrEmpty: there is nothing to receive now.
	ErrEmpty = fault.ErrEmpty
	// ErrClosed: this end was closed, or has ended the session.
	ErrClosed = fault.ErrClosed
	// ErrCancelled: the receiver has cancelled or stopped the stream; the
	// reason is found with errors.As and *CancelError.
	ErrCancelled = fault.ErrCancelled
	// ErrPeerDead: the other side's process has gone, or has closed its end
	// without saying an end.
	ErrPeerDead = fault.ErrPeerDead
	// ErrAlreadyAttached: an exclusive stream has a sender.
	ErrAlreadyAttached = fault.ErrAlreadyAttached
	// ErrNoSuchStream: the worker is unknown, or never had this stream.
	ErrNoSuchStream = fault.ErrNoSuchStream
	// ErrBadHandle: the handle is garbled, or all zero.
	ErrBadHandle = fault.ErrBadHandle
	// ErrStaleHandle: the handle's stream is over.
	ErrStaleHandle = fault.ErrStaleHandle
	// ErrOtherWorker: the handle reached a worker that did not make it.
	ErrOtherWorker = fault.ErrOtherWorker
	// ErrTypeMismatch: sender and receiver mean different payloads.
	ErrTypeMismatch = fault.ErrTypeMismatch
	// ErrTooManySenders: a shared stream has as many senders as it takes.
	ErrTooManySenders = fault.ErrTooManySenders
	// ErrLaneUnavailable: no lane that was asked for can be had, and why.
	ErrLaneUnavailable = fault.ErrLaneUnavailable
	// ErrFrameTooLarge: the frame can never fit the stream's ring.
	ErrFrameTooLarge = fault.ErrFrameTooLarge
	// ErrTimeout: nobody attached in time, or the sender was silent too long.
	ErrTimeout = fault.ErrTimeout
	// ErrCorrupt: the peer has written what no honest peer writes.
	ErrCorrupt = fault.ErrCorrupt
	// ErrLimit: a limit of the system or of this node, and how to raise it.
	ErrLimit = fault.ErrLimit
	// ErrTransport: what carries the frames has failed.
	ErrTransport = fault.ErrTransport
	// ErrFinalized: the stream was ended and takes no sender any more.
	ErrFinalized = fault.ErrFinalized
	// ErrMisuse: a call that the end's state forbids, such as a second
	// reservation before the first is committed.
	ErrMisuse = fault.ErrMisuse
	// ErrDecode: a frame's bytes are no value of the payload.
	ErrDecode = fault.ErrDecode
	// ErrConfig: an option, or a combination of options, that cannot be.
	ErrConfig = fault.ErrConfig
)

// CancelError is an ErrCancelled with the receiver's reason.
type CancelError = fault.CancelError

// TimeoutError is an ErrTimeout with what was waited for, and how long.
type TimeoutError = stream.TimeoutError

// LostError is in the chain of a sender's error when its transport failed
// before everything was known to have arrived: how much may be lost.
type LostError = stream.LostError
