package novastream

import "github.com/novastream/novastream/internal/stream"

// Kind says what a Frame is.
type Kind = stream.Kind

// The kinds of frames that a receiver gets. Those from KindDetached on are the
// last of their sender. On an exclusive stream all of them but KindDetached are
// also the end of the stream; on a shared one KindCancelled and KindTimeout
// with sender 0 are.
const (
	KindData           = stream.Data           // a value
	KindAttached       = stream.Attached       // a sender has come
	KindSoftError      = stream.SoftError      // an error of the sender; the stream goes on
	KindDetached       = stream.Detached       // the sender has left; another may come
	KindDropped        = stream.Dropped        // the sender has gone without saying an end
	KindFinalized      = stream.Finalized      // the sender has sent everything
	KindCancelled      = stream.Cancelled      // this side has cancelled or stopped
	KindTransportError = stream.TransportError // what carried the frames failed, or they were corrupt
	KindTimeout        = stream.Timeout        // nobody attached in time, or the sender was silent
)

// SenderID tells the senders of one stream apart: a new one for each attach,
// from 1. 0 is the stream itself.
type SenderID uint32

// Frame is what a receiver gets.
type Frame[T any] struct {
	Kind   Kind
	Sender SenderID
	// Seq numbers the sender's values and soft errors, from 0; the end of a sender
	// has as its number how many they were.
	Seq uint64
	// Value is the value of a KindData frame, the receiver's own copy.
	Value T
	// Err is why, for soft errors and for ends other than KindFinalized and
	// KindDetached.
	Err error
}
