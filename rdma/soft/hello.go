package soft

import (
	"encoding/binary"
	"fmt"
)

// A connection carries the requests of one queue pair to another, and the replies
// to them. It begins with a hello, which the responder answers by a reply: nakSeq
// with the sequence number that it expects, or nakFatal with what took it to
// Error. Who is not served sees the connection closed.
//
//	0  magic and version
//	4  number of the queue pair that is to serve, 32 bits, little endian as all that follows
//	8  its token
//	24 the requester's device
//	40 the requester's token
//	56 the requester's number, 32 bits
//	60 zero
type hello struct {
	to, from           uint32
	toToken, fromToken id
	fromDevice         id
}

const (
	helloMagic = "NSR\x01"
	helloSize  = 64
)

func (h *hello) append(b []byte) []byte {
	b = append(b, helloMagic...)
	b = binary.LittleEndian.AppendUint32(b, h.to)
	b = append(b, h.toToken[:]...)
	b = append(b, h.fromDevice[:]...)
	b = append(b, h.fromToken[:]...)
	b = binary.LittleEndian.AppendUint32(b, h.from)
	return append(b, 0, 0, 0, 0)
}

func parseHello(b []byte) (h hello, err error) {
	if len(b) != helloSize || string(b[:4]) != helloMagic || string(b[60:]) != "\x00\x00\x00\x00" {
		return h, fmt.Errorf("%w: no hello", errProtocol)
	}
	h.to = binary.LittleEndian.Uint32(b[4:])
	copy(h.toToken[:], b[8:])
	copy(h.fromDevice[:], b[24:])
	copy(h.fromToken[:], b[40:])
	h.from = binary.LittleEndian.Uint32(b[56:])
	return h, nil
}
