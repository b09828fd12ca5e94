//go:build verbs && cgo && linux

package ibv

// #include <stdlib.h>
// #include "nova_verbs.h"
import "C"

import (
	"syscall"
	"unsafe"
)

// Names lists the devices.
func Names() ([]string, error) {
	var n C.int
	list, err := C.ibv_get_device_list(&n)
	if list == nil {
		return nil, err
	}
	defer C.ibv_free_device_list(list)
	names := make([]string, 0, n)
	for _, d := range unsafe.Slice(list, n) {
		names = append(names, C.GoString(C.ibv_get_device_name(d)))
	}
	return names, nil
}

// Context is an open device.
type Context struct{ p *C.struct_ibv_context }

// Open opens a device by its name; ENODEV.
func Open(name string) (Context, error) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var c Context
	rc := C.nova_open(s, &c.p)
	return c, errno(rc)
}

// Close closes the device; nothing made from it may be left.
func (c Context) Close() error { return positive(C.ibv_close_device(c.p)) }

// AsyncFD is the descriptor that can be read when an asynchronous event has come.
func (c Context) AsyncFD() int { return int(c.p.async_fd) }

// Event is an asynchronous event.
type Event struct {
	Type EventType
	Port int     // of events of ports
	QP   uint32  // the number, of events of queue pairs
	CQ   uintptr // the ID, of events of completion queues
}

// EventType is what an Event is about.
type EventType int

// The events that somebody acts on.
const (
	CQError     EventType = C.IBV_EVENT_CQ_ERR
	QPFatal     EventType = C.IBV_EVENT_QP_FATAL
	QPRequest   EventType = C.IBV_EVENT_QP_REQ_ERR
	QPAccess    EventType = C.IBV_EVENT_QP_ACCESS_ERR
	DeviceFatal EventType = C.IBV_EVENT_DEVICE_FATAL
	PortActive  EventType = C.IBV_EVENT_PORT_ACTIVE
	PortError   EventType = C.IBV_EVENT_PORT_ERR
)

// Event takes an asynchronous event; EAGAIN when AsyncFD does not block and there
// is none.
func (c Context) Event() (Event, error) {
	var e C.struct_nova_event
	rc := C.nova_async_event(c.p, &e)
	return Event{Type: EventType(e._type), Port: int(e.port), QP: uint32(e.qp), CQ: uintptr(unsafe.Pointer(e.cq))}, errno(rc)
}

// Attr is what a device can do.
type Attr struct {
	Ports, MaxQP, MaxQPWR, MaxCQE, MaxReads int
	MaxMR                                   uint64
}

// Attr asks what the device can do.
func (c Context) Attr() (Attr, error) {
	var a C.struct_ibv_device_attr
	if err := positive(C.ibv_query_device(c.p, &a)); err != nil {
		return Attr{}, err
	}
	return Attr{
		Ports: int(a.phys_port_cnt), MaxQP: int(a.max_qp), MaxQPWR: int(a.max_qp_wr), MaxCQE: int(a.max_cqe),
		MaxReads: int(min(a.max_qp_rd_atom, a.max_qp_init_rd_atom)), MaxMR: uint64(a.max_mr_size),
	}, nil
}

// Port is the state of a port. MTU is in the encoding of verbs: 1 is 256, 5 is
// 4096.
type Port struct {
	Active, Ethernet bool
	MTU              uint8
	LID              uint16
	MaxMessage       uint32
}

// Port asks for the state of a port, from 1 on.
func (c Context) Port(n int) (Port, error) {
	var a C.struct_ibv_port_attr
	if err := positive(C.nova_query_port(c.p, C.int(n), &a)); err != nil {
		return Port{}, err
	}
	return Port{
		Active: a.state == C.IBV_PORT_ACTIVE, Ethernet: a.link_layer == C.IBV_LINK_LAYER_ETHERNET,
		MTU: uint8(a.active_mtu), LID: uint16(a.lid), MaxMessage: uint32(a.max_msg_sz),
	}, nil
}

// GID is an address of a port.
type GID struct {
	Index, Port int
	Interface   int // the network interface's index, 0: none
	Raw         [16]byte
	RoCE2       bool
}

// GIDs lists the addresses of all ports, by index.
func (c Context) GIDs() ([]GID, error) {
	entries := make([]C.struct_ibv_gid_entry, 512)
	n := C.nova_gids(c.p, &entries[0], C.int(len(entries)))
	if n < 0 {
		return nil, syscall.Errno(-n)
	}
	gids := make([]GID, n)
	for i, e := range entries[:n] {
		gids[i] = GID{Index: int(e.gid_index), Port: int(e.port_num), Interface: int(e.ndev_ifindex), Raw: e.gid, RoCE2: e.gid_type == C.IBV_GID_TYPE_ROCE_V2}
	}
	return gids, nil
}
