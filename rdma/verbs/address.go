package verbs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/novastream/novastream/rdma"
)

// address is what a queue pair is reached by.
//
//	 0  magic, with the version
//	 4  queue pair number
//	 8  first packet's sequence number
//	12  LID; 0 on Ethernet
//	14  active MTU of the port, as verbs encode it
//	15  1: Ethernet
//	16  GID
//	32  checksum of all before
type address struct {
	qpn, psn uint32
	lid      uint16
	mtu      uint8
	ethernet bool
	gid      [16]byte
}

const (
	addressMagic = "nv1\x00"
	addressSize  = 36
)

func (a address) marshal() []byte {
	b := make([]byte, 0, addressSize)
	b = append(b, addressMagic...)
	b = binary.BigEndian.AppendUint32(b, a.qpn)
	b = binary.BigEndian.AppendUint32(b, a.psn)
	b = binary.BigEndian.AppendUint16(b, a.lid)
	b = append(b, a.mtu, 0)
	if a.ethernet {
		b[15] = 1
	}
	b = append(b, a.gid[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func parseAddress(b []byte) (address, error) {
	if len(b) != addressSize || string(b[:4]) != addressMagic || crc32.ChecksumIEEE(b[:32]) != binary.BigEndian.Uint32(b[32:]) {
		return address{}, fmt.Errorf("%w: %d bytes that the Address of a queue pair of provider verbs did not make: both sides must use the same provider", rdma.ErrAddress, len(b))
	}
	a := address{
		qpn: binary.BigEndian.Uint32(b[4:]), psn: binary.BigEndian.Uint32(b[8:]), lid: binary.BigEndian.Uint16(b[12:]),
		mtu: b[14], ethernet: b[15] == 1, gid: [16]byte(b[16:]),
	}
	if a.qpn >= 1<<24 || a.psn >= 1<<24 || mtuBytes(a.mtu) == 0 || b[15] > 1 {
		return address{}, fmt.Errorf("%w: queue pair %#x, sequence %#x, MTU code %d", rdma.ErrAddress, a.qpn, a.psn, a.mtu)
	}
	return a, nil
}
