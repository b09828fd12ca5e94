package soft

import (
	"encoding/binary"
	"fmt"

	"github.com/novastream/novastream/rdma"
)

const (
	maxMessage = 1 << 30
	maxRegion  = 1 << 40

	requestSize = 32
	replySize   = 16
)

// request is the header of a request; the bytes of a WRITE or SEND follow it.
//
//	0  operation
//	1  zero
//	4  length, 32 bits, little endian as all that follows
//	8  remote address, 64 bits
//	16 key, 32 bits
//	20 immediate, 32 bits
//	24 sequence number, 64 bits: the request's position in its send queue
type request struct {
	op     rdma.Op
	length uint32
	remote uint64
	key    uint32
	imm    uint32
	psn    uint64
}

func (r *request) append(b []byte) []byte {
	b = append(b, byte(r.op), 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, r.length)
	b = binary.LittleEndian.AppendUint64(b, r.remote)
	b = binary.LittleEndian.AppendUint32(b, r.key)
	b = binary.LittleEndian.AppendUint32(b, r.imm)
	return binary.LittleEndian.AppendUint64(b, r.psn)
}

// payload is how many bytes follow the header.
func (r *request) payload() int {
	if r.op == rdma.OpRead {
		return 0
	}
	return int(r.length)
}

func parseRequest(b []byte) (r request, err error) {
	if len(b) != requestSize {
		return r, fmt.Errorf("%w: a request of %d bytes", errProtocol, len(b))
	}
	r = request{
		op: rdma.Op(b[0]), length: binary.LittleEndian.Uint32(b[4:]), remote: binary.LittleEndian.Uint64(b[8:]),
		key: binary.LittleEndian.Uint32(b[16:]), imm: binary.LittleEndian.Uint32(b[20:]), psn: binary.LittleEndian.Uint64(b[24:]),
	}
	if r.op < rdma.OpWrite || r.op > rdma.OpRead || b[1]|b[2]|b[3] != 0 || r.length > maxMessage {
		return r, fmt.Errorf("%w: request %x", errProtocol, b)
	}
	return r, nil
}

// replyKind is what a reply says of the request with its sequence number.
type replyKind uint8

const (
	ack      replyKind = iota + 1 // it and all before it are done
	readDone                      // the same, of a READ, whose bytes follow
	nakSeq                        // all before it are done; it is what is expected next
	nakRNR                        // all before it are done; it found no receive
	nakFatal                      // all before it are done; it has the status, and the queue pair is in Error
)

// reply is the header of a reply; the bytes of a READ follow it.
//
//	0  kind
//	1  status, of nakFatal
//	2  zero
//	4  length of a READ, or microseconds to wait after nakRNR, 32 bits
//	8  sequence number, 64 bits
type reply struct {
	kind   replyKind
	status rdma.Status
	value  uint32
	psn    uint64
}

func (r *reply) append(b []byte) []byte {
	b = append(b, byte(r.kind), byte(r.status), 0, 0)
	b = binary.LittleEndian.AppendUint32(b, r.value)
	return binary.LittleEndian.AppendUint64(b, r.psn)
}

func parseReply(b []byte) (r reply, err error) {
	if len(b) != replySize {
		return r, fmt.Errorf("%w: a reply of %d bytes", errProtocol, len(b))
	}
	r = reply{
		kind: replyKind(b[0]), status: rdma.Status(b[1]),
		value: binary.LittleEndian.Uint32(b[4:]), psn: binary.LittleEndian.Uint64(b[8:]),
	}
	bad := r.kind < ack || r.kind > nakFatal || b[2]|b[3] != 0
	switch r.kind {
	case nakFatal:
		bad = bad || r.value != 0 || !remoteStatus(r.status)
	case readDone:
		bad = bad || r.status != 0 || r.value > maxMessage
	case nakRNR:
		bad = bad || r.status != 0 || r.value > maxRNRMicros
	default:
		bad = bad || r.status != 0 || r.value != 0
	}
	if bad {
		return r, fmt.Errorf("%w: reply %x", errProtocol, b)
	}
	return r, nil
}

// maxRNRMicros is the longest RNR timer that verbs knows.
const maxRNRMicros = 655360

// remoteStatus tells whether s is one that the other side may give a request.
func remoteStatus(s rdma.Status) bool {
	return s == rdma.RemoteInvalid || s == rdma.RemoteAccess || s == rdma.RemoteOperation
}
