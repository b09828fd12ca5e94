package rdma

import "fmt"

// Status is how a work request ended. Its values are those of ibv_wc_status.
type Status uint8

// The statuses that reliable connected queue pairs know.
const (
	Success          Status = 0
	LocalLength      Status = 1  // a message longer than the memory it was received into
	LocalOperation   Status = 2  // the queue pair is inconsistent
	LocalProtection  Status = 4  // local memory that is not registered, or not for this
	Flushed          Status = 5  // the queue pair was in Error before the request was done
	BadResponse      Status = 8  // the peer answered what nobody asked
	RemoteInvalid    Status = 9  // the peer's queue pair cannot do this
	RemoteAccess     Status = 10 // the key, the range or the access was refused
	RemoteOperation  Status = 11 // the peer could not complete it
	RetryExceeded    Status = 12 // no acknowledgement after RetryCount retransmissions
	RNRRetryExceeded Status = 13 // the peer had no receive posted, RNRRetry times
	Fatal            Status = 19 // the device is gone or broken
)

var statuses = map[Status]struct {
	name string
	err  error
}{
	Success:          {"success", nil},
	LocalLength:      {"local length", ErrLocalLength},
	LocalOperation:   {"local operation", ErrLocalOperation},
	LocalProtection:  {"local protection", ErrLocalProtection},
	Flushed:          {"flushed", ErrFlushed},
	BadResponse:      {"bad response", ErrBadResponse},
	RemoteInvalid:    {"remote invalid request", ErrRemoteInvalid},
	RemoteAccess:     {"remote access", ErrRemoteAccess},
	RemoteOperation:  {"remote operation", ErrRemoteOperation},
	RetryExceeded:    {"retry exceeded", ErrRetryExceeded},
	RNRRetryExceeded: {"RNR retry exceeded", ErrRNRRetryExceeded},
	Fatal:            {"fatal", ErrDeviceGone},
}

// String is the status's name.
func (s Status) String() string {
	if n, ok := statuses[s]; ok {
		return n.name
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Err is nil for Success, and otherwise the error of this status.
func (s Status) Err() error {
	if n, ok := statuses[s]; ok {
		return n.err
	}
	return fmt.Errorf("%w: ibv_wc_status %d", ErrStatus, uint8(s))
}
