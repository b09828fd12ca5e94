package rdma

import "errors"

// The errors of this package and of its providers, each wrapped with the value
// and what to do.
var (
	// ErrUnknownProvider is a provider's name that nobody registered.
	ErrUnknownProvider = errors.New("rdma: unknown provider")
	// ErrNoDevice is a device that is not there, or a host that has none.
	ErrNoDevice = errors.New("rdma: no device")
	// ErrPort is a device without a port, or whose port is not active.
	ErrPort = errors.New("rdma: no active port")
	// ErrMTU is a path MTU that the two ports do not share.
	ErrMTU = errors.New("rdma: path MTU mismatch")
	// ErrLimit is a limit of the device or the system: which, and how to raise it.
	ErrLimit = errors.New("rdma: limit reached")
	// ErrAddress is what Connect was given and no queue pair's Address made.
	ErrAddress = errors.New("rdma: malformed queue pair address")
	// ErrOption is an option that cannot be.
	ErrOption = errors.New("rdma: impossible option")
	// ErrQueueFull is a post for which the queue has no room: poll completions.
	ErrQueueFull = errors.New("rdma: work queue full")
	// ErrState is a call that the queue pair's state does not permit.
	ErrState = errors.New("rdma: wrong queue pair state")
	// ErrRequest is a work request that no provider can execute.
	ErrRequest = errors.New("rdma: malformed work request")
	// ErrOverflow is a completion queue that had no room for a completion. It and
	// its queue pairs are lost.
	ErrOverflow = errors.New("rdma: completion queue overflow")
	// ErrDeviceGone is a device that was removed under its user.
	ErrDeviceGone = errors.New("rdma: device removed")
	// ErrClosed is a call on what was closed.
	ErrClosed = errors.New("rdma: closed")
	// ErrUnsupported is what this build or system cannot do.
	ErrUnsupported = errors.New("rdma: not supported")
	// ErrNoCM is a system without rdma_cm, or whose rdma_cm may not be used.
	ErrNoCM = errors.New("rdma: no connection manager")
	// ErrUnreachable is an address that rdma_cm finds no way to from the device.
	ErrUnreachable = errors.New("rdma: address unreachable")
	// ErrNoListener is an address at which nobody listens.
	ErrNoListener = errors.New("rdma: nobody listens")
	// ErrRefused is a request that was rejected: see RefusedError.
	ErrRefused = errors.New("rdma: connection refused")
	// ErrDisconnected is a connection that the other side has ended.
	ErrDisconnected = errors.New("rdma: disconnected")
)

// The errors of completions, one for each Status; Status.Err gives them.
var (
	ErrLocalLength      = errors.New("rdma: message longer than the memory it was received into")
	ErrLocalOperation   = errors.New("rdma: queue pair inconsistent")
	ErrLocalProtection  = errors.New("rdma: local memory is not registered for this")
	ErrFlushed          = errors.New("rdma: flushed")
	ErrBadResponse      = errors.New("rdma: unexpected response")
	ErrRemoteInvalid    = errors.New("rdma: remote refused the request as invalid")
	ErrRemoteAccess     = errors.New("rdma: remote key does not permit this")
	ErrRemoteOperation  = errors.New("rdma: remote could not complete the request")
	ErrRetryExceeded    = errors.New("rdma: remote does not answer")
	ErrRNRRetryExceeded = errors.New("rdma: remote has no receive posted")
	ErrStatus           = errors.New("rdma: request failed")
)
