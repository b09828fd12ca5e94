package rdma

import "fmt"

// Op is what a work request does, or what a completion is of.
type Op uint8

// The operations. The first four are posted with PostSend; OpRecv and OpRecvWrite
// are what a receive completes with.
const (
	OpWrite     Op = iota + 1 // local memory to the peer's region
	OpWriteImm                // the same, and the peer's next receive completes with Imm
	OpSend                    // local memory to where the peer's next receive says
	OpRead                    // the peer's region to local memory
	OpRecv                    // a SEND has arrived
	OpRecvWrite               // a WRITE_WITH_IMM has arrived; the receive's memory is untouched
)

// String is the operation's name.
func (o Op) String() string {
	switch o {
	case OpWrite:
		return "WRITE"
	case OpWriteImm:
		return "WRITE_WITH_IMM"
	case OpSend:
		return "SEND"
	case OpRead:
		return "READ"
	case OpRecv:
		return "RECV"
	case OpRecvWrite:
		return "RECV_RDMA_WITH_IMM"
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// Flags modify a SendWR.
type Flags uint8

// The flags.
const (
	Signaled Flags = 1 << iota // completes also when it succeeds
	Inline                     // the bytes are taken at the post; at most MaxInline, not for READ
	Fence                      // starts only when all READs before it are done
)

// Segment is a range of local registered memory: see SegmentOf. A Length of 0 is
// no memory at all, and its LKey is not looked at.
type Segment struct {
	Addr   uint64
	Length uint32
	LKey   uint32
}

// SendWR is a work request for PostSend. It holds no pointer and its layout is
// fixed, so that a batch of them can be passed to C. PostSend does not keep it.
type SendWR struct {
	ID     uint64  // comes back in the completion
	Remote uint64  // where in the peer's region, from its Addr on; not for SEND
	Local  Segment // what is sent, or where a READ goes
	RKey   uint32  // of the peer's region; not for SEND
	Imm    uint32  // for OpWriteImm
	Op     Op
	Flags  Flags
	_      [6]byte
}

// RecvWR is a work request for PostRecv, laid out as SendWR is. Receives that only
// serve WRITE_WITH_IMM need no memory.
type RecvWR struct {
	ID    uint64
	Local Segment
}
