package stream

import "strconv"

// Kind is what a receiver is told by a frame.
type Kind uint8

// The kinds; see novastream's constants of the same names.
const (
	Data Kind = iota + 1
	Attached
	SoftError
	Detached
	Dropped
	Finalized
	Cancelled
	TransportError
	Timeout
)

var kindNames = [...]string{"None", "Data", "Attached", "SoftError", "Detached", "Dropped", "Finalized", "Cancelled", "TransportError", "Timeout"}

// String gives the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Exit tells whether the frame is the last of its sender.
func (k Kind) Exit() bool { return k >= Detached }
