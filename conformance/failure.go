package conformance

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// sentinels are the errors that keep their identity between a child and the test, by
// name.
var sentinels = map[string]error{
	"Full": novastream.ErrFull, "Empty": novastream.ErrEmpty, "Closed": novastream.ErrClosed,
	"Cancelled": novastream.ErrCancelled, "PeerDead": novastream.ErrPeerDead,
	"AlreadyAttached": novastream.ErrAlreadyAttached, "NoSuchStream": novastream.ErrNoSuchStream,
	"BadHandle": novastream.ErrBadHandle, "StaleHandle": novastream.ErrStaleHandle,
	"OtherWorker": novastream.ErrOtherWorker, "TypeMismatch": novastream.ErrTypeMismatch,
	"TooManySenders": novastream.ErrTooManySenders, "LaneUnavailable": novastream.ErrLaneUnavailable,
	"FrameTooLarge": novastream.ErrFrameTooLarge, "Timeout": novastream.ErrTimeout,
	"Corrupt": novastream.ErrCorrupt, "Limit": novastream.ErrLimit, "Transport": novastream.ErrTransport,
	"Finalized": novastream.ErrFinalized, "Misuse": novastream.ErrMisuse, "Decode": novastream.ErrDecode,
	"Config": novastream.ErrConfig,

	"context.Canceled": context.Canceled, "context.DeadlineExceeded": context.DeadlineExceeded,

	"control.UnknownPeer": control.ErrUnknownPeer, "control.Unreachable": control.ErrUnreachable,
	"control.UnknownHandler": control.ErrUnknownHandler, "control.Deadline": control.ErrDeadline,
	"control.ConnLost": control.ErrConnLost, "control.Closed": control.ErrClosed,
	"control.MessageTooLarge": control.ErrMessageTooLarge, "control.Malformed": control.ErrMalformed,
}

// verdict names the first sentinel, in the order of the names, that an error is.
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	if f := failureOf(err); len(f.Names) > 0 {
		return f.Names[0]
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// Failure is an error of another process: errors.Is finds in it what it was there, and
// errors.As what says more.
type Failure struct {
	Text    string
	Names   []string                 `json:",omitempty"` // in sentinels, in order
	Cancel  *novastream.CancelError  `json:",omitempty"`
	Lost    *novastream.LostError    `json:",omitempty"`
	TimeOut *novastream.TimeoutError `json:",omitempty"`
}

func failureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Text: err.Error()}
	for _, name := range names {
		if errors.Is(err, sentinels[name]) {
			f.Names = append(f.Names, name)
		}
	}
	errors.As(err, &f.Cancel)
	errors.As(err, &f.Lost)
	errors.As(err, &f.TimeOut)
	return f
}

// names are the sentinels', sorted.
var names = slices.Sorted(maps.Keys(sentinels))

func (f *Failure) Error() string { return f.Text }

func (f *Failure) Unwrap() (all []error) {
	for _, name := range f.Names {
		all = append(all, sentinels[name])
	}
	if f.Cancel != nil {
		all = append(all, f.Cancel)
	}
	if f.Lost != nil {
		all = append(all, f.Lost)
	}
	if f.TimeOut != nil {
		all = append(all, f.TimeOut)
	}
	return all
}

// err is the error, or nil without one.
func (f *Failure) err() error {
	if f == nil {
		return nil
	}
	return f
}
