package ring

import "strconv"

// Kind says what a frame is. Kinds from Detached to Dropped end a session.
type Kind uint8

// The kinds of frames. Heartbeat and Pad are consumed by the ring's reader and
// never reach a caller. The values are part of the format.
const (
	Data           Kind = 1  // a value of the stream
	Raw            Kind = 2  // bytes that no codec has touched
	Heartbeat      Kind = 3  // nothing but a sign of life
	SoftError      Kind = 4  // an error that does not end the stream: its text
	Detached       Kind = 5  // this sender has left; another may come
	Finalized      Kind = 6  // no more frames, ever
	Cancelled      Kind = 7  // the sender ended because it was cancelled
	TransportError Kind = 8  // what carried the frames has failed
	Dropped        Kind = 9  // the sender ended without saying how
	Pad            Kind = 10 // slots to skip
)

var kindNames = [...]string{
	"None", "Data", "Raw", "Heartbeat", "SoftError", "Detached",
	"Finalized", "Cancelled", "TransportError", "Dropped", "Pad",
}

// Terminal tells whether a frame of this kind ends its session.
func (k Kind) Terminal() bool { return k >= Detached && k <= Dropped }

// String gives the kind's name, or its number when it has none.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}
