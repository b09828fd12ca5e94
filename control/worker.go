package control

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/zeebo/xxh3"
)

// InstanceID tells the nodes of all times and places apart.
type InstanceID = uuid.UUID

// WorkerID is the short name of a node: the xxh3 of its InstanceID, never 0.
type WorkerID uint64

// String gives 16 hexadecimal digits.
func (w WorkerID) String() string { return fmt.Sprintf("%016x", uint64(w)) }

// WorkerOf is the worker id of an instance.
func WorkerOf(id InstanceID) WorkerID {
	if h := xxh3.Hash(id[:]); h != 0 {
		return WorkerID(h)
	}
	return 1
}

// Transport is what carries a connection between two nodes.
type Transport uint8

// The transports.
const (
	Unix Transport = iota + 1 // one host: carries descriptors
	TCP                       // gRPC
)

// String names the transport.
func (t Transport) String() string {
	switch t {
	case Unix:
		return "unix"
	case TCP:
		return "tcp"
	}
	return "none"
}
