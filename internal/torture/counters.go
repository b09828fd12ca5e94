package torture

import (
	"fmt"

	"github.com/novastream/novastream"
)

// Sums are what the library has counted of a lane's frames, each beside what the
// books say of the same sessions.
type Sums struct {
	Told    uint64 `json:"told"`    // frames, as the ends of sessions tell their number
	Came    uint64 `json:"came"`    // of those sessions
	Frames  uint64 `json:"frames"`  // in SenderStats, of rounds that ended in order over a network
	Sent    uint64 `json:"sent"`    // in those rounds
	Payload uint64 `json:"payload"` // bytes in SenderStats
	Wire    uint64 `json:"wire"`
	Bytes   uint64 `json:"bytes"` // sent, without headers
}

func (s *Sums) received(x *sessionBook) {
	if x.Exits > 0 {
		s.Told += x.Counted
		s.Came += x.came()
	}
}

func (s *Sums) sent(x *senderBook) {
	if !x.orderly() {
		return
	}
	s.Frames += x.Counted.Frames
	s.Sent += x.Committed
	s.Payload += x.Counted.Payload
	s.Wire += x.Counted.Wire
	s.Bytes += x.Bytes
}

func (s Sums) String() string {
	told := fmt.Sprintf("the ends tell of %d frames, %d came", s.Told, s.Came)
	if s.Frames+s.Sent == 0 {
		return told
	}
	return fmt.Sprintf("%s; senders counted %d frames of %d: %d bytes as %d, %d on the wire", told, s.Frames, s.Sent, s.Bytes, s.Payload, s.Wire)
}

// came is how many frames came, whatever they were.
func (s *sessionBook) came() uint64 { return s.Got + s.Torn + s.Doubled + s.Foreign }

// orderly tells whether a round has ended with a call that says that all has arrived:
// what the library has counted is in the book then.
func (x *senderBook) orderly() bool {
	return x.Ended && x.Error == 0 && (x.End == Finalize || x.End == Detach)
}

// What frames and sessions take over a network, beside their payload.
const (
	slotBytes    = 64
	valueHeader  = 8
	bytesHeader  = 16
	endBytes     = 8  // over tcp, of the word that ends a session
	batchHeader  = 8  // over tcp the session's name, over rdma the announcement
	batchEncoded = 16 // at most, when batches may be compressed
)

// framed is how many bytes of Payload a frame of bytes is.
func (l *Lane) framed(size int) uint64 {
	n := uint64(size) + bytesHeader
	if l.rdma() { // frames lie in slots
		n = (n + slotBytes - 1) / slotBytes * slotBytes
	}
	return n
}

func (l *Lane) rdma() bool { return l.lane == novastream.LaneRDMA }

// miscounted tells what SenderStats have counted that is not what was sent: nothing, if
// they agree. Frames of bytes do not go around the end of a ring: Pads fill it up, of
// which the header goes along.
func (l *Lane) miscounted(s *StreamPlan, x *senderBook) string {
	if !x.orderly() {
		return ""
	}
	if !l.carried {
		if x.Counted != (novastream.SenderStats{}) {
			return "something counted, where nothing is carried"
		}
		return ""
	}
	payload := x.Framed
	if s.Values {
		payload = x.Committed * (valueHeader + valueBytes)
	}
	if !l.rdma() {
		payload += endBytes
	}
	pads := x.Counted.Payload - payload
	wire := x.Counted.Payload + batchHeader*x.Counted.Batches
	switch {
	case x.Counted.Frames != x.Committed:
		return "frames"
	case s.Values && pads != 0, pads%bytesHeader != 0, pads/bytesHeader > x.Committed:
		return fmt.Sprintf("payload, which should be %d", payload)
	case !s.S2 && x.Counted.Wire != wire, s.S2 && x.Counted.Wire > wire+(batchEncoded-batchHeader)*x.Counted.Batches:
		return fmt.Sprintf("wire, which should be %d", wire)
	}
	return ""
}
