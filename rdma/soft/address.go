package soft

import (
	"encoding/binary"
	"fmt"

	"github.com/novastream/novastream/rdma"
)

// address is what a queue pair tells of itself, for the other side's Connect:
//
//	0  version, 1
//	1  length of the host and port
//	2  MTU, 16 bits, little endian as all that follows
//	4  number of the queue pair, 32 bits
//	8  the device
//	24 the queue pair's token
//	40 host and port
type address struct {
	mtu      int
	num      uint32
	dev, qp  id
	hostPort string
}

const (
	addressVersion = 1
	addressFixed   = 40
	maxHostPort    = 255
)

func (a address) append(b []byte) []byte {
	b = append(b, addressVersion, byte(len(a.hostPort)))
	b = binary.LittleEndian.AppendUint16(b, uint16(a.mtu))
	b = binary.LittleEndian.AppendUint32(b, a.num)
	b = append(b, a.dev[:]...)
	b = append(b, a.qp[:]...)
	return append(b, a.hostPort...)
}

func parseAddress(b []byte) (a address, err error) {
	if len(b) < addressFixed || len(b) != addressFixed+int(b[1]) || b[0] != addressVersion {
		return a, fmt.Errorf("%w: %d bytes that are no address of a soft queue pair", rdma.ErrAddress, len(b))
	}
	a.mtu = int(binary.LittleEndian.Uint16(b[2:]))
	a.num = binary.LittleEndian.Uint32(b[4:])
	copy(a.dev[:], b[8:])
	copy(a.qp[:], b[24:])
	a.hostPort = string(b[addressFixed:])
	return a, nil
}
