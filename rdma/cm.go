package rdma

import (
	"context"
	"net/netip"
)

// CMData is how many bytes of private data a message of rdma_cm carries.
const CMData = 56

// CM is what a Device also implements when its queue pairs can be connected by
// rdma_cm, the connection manager of the kernel, instead of by an exchange of
// their addresses and QP.Connect. Its methods may be called concurrently.
//
// Private data goes with the request, the answer and the refusal, up to CMData
// bytes. The wire has no length of it: what is received may be padded with zeros.
//
// Closing the device closes its listeners, requests and connections.
type CM interface {
	// ListenCM listens at an address of the device's interface. An invalid IP is
	// the device's own, a port of 0 one that is free. ErrNoCM, ErrAddress, ErrLimit.
	ListenCM(at netip.AddrPort) (CMListener, error)
	// DialCM connects a queue pair in Init, of this device, to whoever listens, and
	// returns when it is in RTS. It waits no longer than the context, whose cause it
	// then returns: on a network that drops everything the kernel itself gives up
	// after a minute only. When it fails after the answer came, the queue pair may
	// be in Error. ErrNoCM, ErrOption, ErrState, ErrMTU; ErrUnreachable,
	// ErrNoListener, ErrRefused.
	DialCM(ctx context.Context, qp QP, to netip.AddrPort, private []byte, opt ConnectOptions) (CMConn, error)
}

// CMListener is a listener. Its methods may be called concurrently.
type CMListener interface {
	// Addr is where it listens.
	Addr() netip.AddrPort
	// Next waits for the next request. The context's cause when that ends;
	// ErrClosed, ErrDeviceGone.
	Next(ctx context.Context) (CMRequest, error)
	// Close ends it, and refuses what Next has not returned.
	Close() error
}

// CMRequest is a request, to be answered by either method, once: ErrState after
// that.
type CMRequest interface {
	// PrivateData is the other side's, valid for ever.
	PrivateData() []byte
	// Accept connects a queue pair in Init, of the listener's device, and returns
	// when the other side has confirmed. Its errors are DialCM's; the request is
	// used up by any but ErrOption and ErrState.
	Accept(ctx context.Context, qp QP, private []byte, opt ConnectOptions) (CMConn, error)
	// Reject refuses: the other side gets ErrRefused.
	Reject(private []byte) error
}

// CMConn is a connection of a queue pair, which stays its maker's to close. Its
// methods may be called concurrently.
type CMConn interface {
	// PrivateData is what the other side has said, valid for ever.
	PrivateData() []byte
	// Wait waits until the other side disconnects: ErrDisconnected, and the queue
	// pair is in Error. A peer that vanishes does not disconnect. The context's
	// cause when that ends; ErrClosed, ErrDeviceGone.
	Wait(ctx context.Context) error
	// Close disconnects, and takes the queue pair to Error.
	Close() error
}

// RefusedError is an ErrRefused with the private data of who refused.
type RefusedError struct{ Private []byte }

// Error is the error's text.
func (e *RefusedError) Error() string { return ErrRefused.Error() + ": by whoever listens" }

// Unwrap is ErrRefused.
func (e *RefusedError) Unwrap() error { return ErrRefused }
