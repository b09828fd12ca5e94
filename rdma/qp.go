package rdma

import (
	"context"
	"fmt"
	"time"
)

// QP is a reliable connected queue pair: what is posted is executed in the order
// of posting, each exactly once or not at all, and completes in that order.
//
// One goroutine posts sends and one, the same or another, posts receives. The
// first request that fails takes the queue pair to Error, where it stays: that
// request completes with its status, and all others, posted before or after, with
// Flushed. Failed and flushed requests complete even when they are not signalled.
type QP interface {
	// Num is the queue pair's number, unique in its device while it is open.
	Num() uint32
	// Address is what the other side's Connect needs, some hundred bytes at most.
	// Who has it may connect: treat it as a secret.
	Address() []byte
	// Connect takes the queue pair from Init to RTS. remote is the other side's
	// Address. Nothing is exchanged with it: until its Connect has returned too,
	// what is sent to it is retried, as if it were unreachable. ErrState, ErrAddress,
	// ErrMTU, ErrOption, ErrPort.
	Connect(ctx context.Context, remote []byte, opt ConnectOptions) error
	// PostSend queues requests, in one crossing, and never waits. It returns how
	// many of them are queued; with an error that is how many come before the one
	// that is not. ErrQueueFull, ErrRequest, ErrState before RTS, ErrClosed.
	//
	// A request takes a place of the queue until the completion of it or of a later
	// one has been polled. So of MaxSend requests in a row one must be Signaled.
	PostSend(wrs []SendWR) (int, error)
	// PostRecv queues receives, in any state, and is otherwise as PostSend.
	PostRecv(wrs []RecvWR) (int, error)
	// State is the queue pair's state. It may cost a system call.
	State() State
	// Abort takes the queue pair to Error, so that everything outstanding is
	// flushed. When the last completion has been polled, nothing touches the
	// memory of its requests any more.
	Abort() error
	// Close is Abort, and then destroys the queue pair: once it has returned,
	// nothing touches the memory of its requests. Completions that have not been
	// polled by then may or may not still come.
	Close() error
}

// QPOptions says what a queue pair is to be like. All but MaxInline is needed.
type QPOptions struct {
	SendCQ, RecvCQ   CQ // of the same domain; may be the same
	MaxSend, MaxRecv int
	MaxInline        int // bytes, 0: no inline requests
}

// State is the state of a queue pair.
type State uint8

// The states, in the order in which Connect takes a queue pair through them.
const (
	Reset State = iota
	Init        // receives can be posted
	RTR         // receives
	RTS         // receives and sends
	Error       // flushes what is posted
)

// String is the state's name.
func (s State) String() string {
	switch s {
	case Reset:
		return "Reset"
	case Init:
		return "Init"
	case RTR:
		return "RTR"
	case RTS:
		return "RTS"
	case Error:
		return "Error"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// The defaults of ConnectOptions: half a second until a peer that does not
// answer is RetryExceeded.
const (
	DefaultTimeout    = 67108864 * time.Nanosecond // 4.096 µs times two to the power of 14
	DefaultRetryCount = 6
	DefaultRNRRetry   = 6
	DefaultRNRTimer   = 640 * time.Microsecond
)

// ConnectOptions says when a queue pair gives up. The zero value is the defaults;
// both sides should use the same.
type ConnectOptions struct {
	// Timeout is how long an acknowledgement may take before the request is sent
	// again; devices round it up to 4.096 µs times a power of two.
	Timeout time.Duration
	// RetryCount is how often, from 1 to 6; -1 is never. The 7 of verbs, which
	// real devices take for seven and rdma_rxe for ever, is refused.
	RetryCount int
	// RNRRetry is how often a request is sent again to a peer that has no receive
	// posted, from 1 to 6; -1 is never. For ever (7 in verbs) is refused.
	RNRRetry int
	// RNRTimer is how long this side asks the other to wait before each of those;
	// devices round it to a value of their table.
	RNRTimer time.Duration
	// MTU is the path MTU; 0 is the port's, which must then be the other's too.
	MTU int
}

// Normalize fills in the defaults, and refuses with ErrOption what cannot be. It
// is for providers.
func (o ConnectOptions) Normalize() (ConnectOptions, error) {
	for _, n := range []struct {
		name string
		v    *int
		def  int
	}{{"RetryCount", &o.RetryCount, DefaultRetryCount}, {"RNRRetry", &o.RNRRetry, DefaultRNRRetry}} {
		switch {
		case *n.v == 0:
			*n.v = n.def
		case *n.v == -1:
			*n.v = 0
		case *n.v < 0 || *n.v > 6:
			return o, fmt.Errorf("%w: %s %d: it goes from 1 to 6, or -1 for none", ErrOption, n.name, *n.v)
		}
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.RNRTimer == 0 {
		o.RNRTimer = DefaultRNRTimer
	}
	if o.Timeout < 0 || o.Timeout > time.Minute || o.RNRTimer < 0 || o.RNRTimer > 655360*time.Microsecond {
		return o, fmt.Errorf("%w: Timeout %v goes up to a minute, RNRTimer %v to 655.36ms", ErrOption, o.Timeout, o.RNRTimer)
	}
	if o.MTU != 0 && (o.MTU < 256 || o.MTU > 4096 || o.MTU&(o.MTU-1) != 0) {
		return o, fmt.Errorf("%w: MTU %d: 256, 512, 1024, 2048 or 4096", ErrOption, o.MTU)
	}
	return o, nil
}
