package control

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// The errors of this package, each wrapped with the value and what to do.
var (
	ErrUnknownPeer      = errors.New("control: unknown worker")
	ErrUnreachable      = errors.New("control: worker unreachable")
	ErrUnknownHandler   = errors.New("control: unknown handler")
	ErrDuplicateHandler = errors.New("control: handler exists")
	ErrDeadline         = errors.New("control: deadline exceeded")
	ErrConnLost         = errors.New("control: connection lost")
	ErrShutdown         = errors.New("control: node is shutting down")
	ErrClosed           = errors.New("control: node is closed")
	ErrHandlerPanic     = errors.New("control: handler panicked")
	ErrMessageTooLarge  = errors.New("control: message too large")
	ErrMalformed        = errors.New("control: malformed message")
	ErrPeerRefused      = errors.New("control: peer refused")
	ErrInsecureDir      = errors.New("control: insecure directory")
	ErrSocketPath       = errors.New("control: socket path too long")
	ErrInsecureTCP      = errors.New("control: TCP without TLS")
	ErrNoDescriptors    = errors.New("control: no descriptors over this transport")
	ErrSelf             = errors.New("control: worker is this node")
	ErrGrant            = errors.New("control: grant unknown, used or expired")
	ErrConfig           = errors.New("control: impossible option")
	ErrLimit            = errors.New("control: limit reached")
)

// registry maps codes to the errors that keep their identity on the wire.
var registry = struct {
	sync.RWMutex
	byCode map[string]error
	codes  []string
}{byCode: map[string]error{}}

// RegisterError makes an error keep its identity: an error of a handler whose
// chain holds err is found by errors.Is on the caller's side, in a process that
// has registered the same code. It is to be called from init; a second
// registration of a code replaces the first.
func RegisterError(code string, err error) {
	registry.Lock()
	defer registry.Unlock()
	if _, ok := registry.byCode[code]; !ok {
		registry.codes = append(registry.codes, code)
	}
	registry.byCode[code] = err
}

func init() {
	for code, err := range map[string]error{
		"nova.unknown_handler": ErrUnknownHandler, "nova.deadline": ErrDeadline, "nova.shutdown": ErrShutdown,
		"nova.panic": ErrHandlerPanic, "nova.too_large": ErrMessageTooLarge, "nova.malformed": ErrMalformed,
		"nova.no_descriptors": ErrNoDescriptors, "nova.grant": ErrGrant, "nova.closed": ErrClosed, "nova.limit": ErrLimit,
		"context.deadline": context.DeadlineExceeded, "context.canceled": context.Canceled,
	} {
		RegisterError(code, err)
	}
}

// RemoteError is an error that a handler of another node has answered. Its
// chain holds the registered errors that the handler's did.
type RemoteError struct {
	Message string
	errs    []error
}

func (e *RemoteError) Error() string { return e.Message }

// Unwrap is for errors.Is.
func (e *RemoteError) Unwrap() []error { return e.errs }

func encodeError(err error) *controlpb.Error {
	registry.RLock()
	defer registry.RUnlock()
	e := &controlpb.Error{Message: err.Error()}
	for _, code := range registry.codes {
		if errors.Is(err, registry.byCode[code]) {
			e.Codes = append(e.Codes, code)
		}
	}
	return e
}

func decodeError(e *controlpb.Error) error {
	registry.RLock()
	defer registry.RUnlock()
	r := &RemoteError{Message: e.Message}
	for _, code := range e.Codes {
		if err := registry.byCode[code]; err != nil {
			r.errs = append(r.errs, err)
		}
	}
	return r
}

// deadline gives a context's end its own name.
func deadline(ctx context.Context, what string) error {
	if err := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %s: %w", ErrDeadline, what, err)
	} else if err != nil {
		return fmt.Errorf("control: %s: %w", what, err)
	}
	return nil
}
