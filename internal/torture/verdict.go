package torture

import (
	"context"
	"errors"
	"strings"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// verdict is the set of the conditions that an error is.
type verdict uint64

// conditions are those that a sender or a receiver here can meet.
var conditions = []struct {
	name string
	err  error
}{
	{"PeerDead", novastream.ErrPeerDead},
	{"Cancelled", novastream.ErrCancelled},
	{"Closed", novastream.ErrClosed},
	{"Transport", novastream.ErrTransport},
	{"Timeout", novastream.ErrTimeout},
	{"Finalized", novastream.ErrFinalized},
	{"StaleHandle", novastream.ErrStaleHandle},
	{"NoSuchStream", novastream.ErrNoSuchStream},
	{"AlreadyAttached", novastream.ErrAlreadyAttached},
	{"TooManySenders", novastream.ErrTooManySenders},
	{"LaneUnavailable", novastream.ErrLaneUnavailable},
	{"Corrupt", novastream.ErrCorrupt},
	{"Limit", novastream.ErrLimit},
	{"ConnLost", control.ErrConnLost},
	{"Unreachable", control.ErrUnreachable},
	{"PeerRefused", control.ErrPeerRefused},
	{"Deadline", context.DeadlineExceeded},
	{"Canceled", context.Canceled},
	{"Misuse", novastream.ErrMisuse},
}

// nameless is an error that is none of the conditions.
const nameless = verdict(1) << 63

func verdictOf(err error) (v verdict) {
	if err == nil {
		return 0
	}
	for i, c := range conditions {
		if errors.Is(err, c.err) {
			v |= 1 << i
		}
	}
	if v == 0 {
		return nameless
	}
	return v
}

// is tells whether it is any of the conditions.
func (v verdict) is(errs ...error) bool {
	for _, err := range errs {
		for i, c := range conditions {
			if c.err == err && v&(1<<i) != 0 {
				return true
			}
		}
	}
	return false
}

func (v verdict) String() string {
	if v == 0 {
		return "none"
	}
	var names []string
	for i, c := range conditions {
		if v&(1<<i) != 0 {
			names = append(names, c.name)
		}
	}
	if v&nameless != 0 {
		names = append(names, "an error without a name")
	}
	return strings.Join(names, "+")
}
