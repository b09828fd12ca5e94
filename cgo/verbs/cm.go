//go:build verbs && cgo && linux

package ibv

// #cgo LDFLAGS: -lrdmacm
// #include "nova_cm.h"
import "C"

import (
	"net/netip"
	"unsafe"
)

// CMData is how many bytes of private data every message of rdma_cm can carry.
const CMData = C.NOVA_CM_DATA

// CMChannel is a channel for events of identifiers.
type CMChannel struct{ p *C.struct_rdma_event_channel }

// NewCMChannel makes a channel; ENODEV or ENOENT where rdma_ucm is not loaded.
func NewCMChannel() (CMChannel, error) {
	var c CMChannel
	rc := C.nova_cm_channel(&c.p)
	return c, errno(rc)
}

// FD is the descriptor that can be read when an event has come.
func (c CMChannel) FD() int { return int(c.p.fd) }

// Close destroys it; no identifier may be left.
func (c CMChannel) Close() { C.rdma_destroy_event_channel(c.p) }

// CMEvent is an event of an identifier: a new one's, of CMRequest.
type CMEvent struct {
	ID     CMID
	Type   CMEventType
	Status int // an errno negated, or why the other side rejected
	Reads  int // READs in flight that the other side offers
	Data   []byte
}

// CMEventType is what a CMEvent is about.
type CMEventType int

// The events that somebody acts on.
const (
	CMAddress      CMEventType = C.RDMA_CM_EVENT_ADDR_RESOLVED
	CMAddressError CMEventType = C.RDMA_CM_EVENT_ADDR_ERROR
	CMRoute        CMEventType = C.RDMA_CM_EVENT_ROUTE_RESOLVED
	CMRouteError   CMEventType = C.RDMA_CM_EVENT_ROUTE_ERROR
	CMRequest      CMEventType = C.RDMA_CM_EVENT_CONNECT_REQUEST
	CMResponse     CMEventType = C.RDMA_CM_EVENT_CONNECT_RESPONSE
	CMConnectError CMEventType = C.RDMA_CM_EVENT_CONNECT_ERROR
	CMUnreachable  CMEventType = C.RDMA_CM_EVENT_UNREACHABLE
	CMRejected     CMEventType = C.RDMA_CM_EVENT_REJECTED
	CMEstablished  CMEventType = C.RDMA_CM_EVENT_ESTABLISHED
	CMDisconnected CMEventType = C.RDMA_CM_EVENT_DISCONNECTED
	CMRemoval      CMEventType = C.RDMA_CM_EVENT_DEVICE_REMOVAL
)

// Event takes an event; EAGAIN when FD does not block and there is none.
func (c CMChannel) Event() (CMEvent, error) {
	var e C.struct_nova_cm_event
	if err := errno(C.nova_cm_event(c.p, &e)); err != nil {
		return CMEvent{}, err
	}
	return CMEvent{
		ID: CMID{e.id}, Type: CMEventType(e._type), Status: int(e.status), Reads: int(e.reads),
		Data: C.GoBytes(unsafe.Pointer(&e.data[0]), C.int(e.size)),
	}, nil
}

// CMID is an identifier: a listener, or one side of a connection.
type CMID struct{ p *C.struct_rdma_cm_id }

// NewID makes an identifier.
func (c CMChannel) NewID() (CMID, error) {
	var id CMID
	rc := C.nova_cm_id(c.p, &id.p)
	return id, errno(rc)
}

func cmAddr(a netip.AddrPort, scope uint32) C.struct_nova_cm_addr {
	c := C.struct_nova_cm_addr{port: C.uint16_t(a.Port()), scope: C.uint32_t(scope)}
	ip := a.Addr().Unmap()
	switch {
	case ip.Is4():
		c.family = 4
	case ip.Is6():
		c.family = 6
	}
	for i, b := range ip.AsSlice() {
		c.ip[i] = C.uint8_t(b)
	}
	return c
}

// Listen binds to an address and listens; EADDRINUSE, ENODEV.
func (i CMID) Listen(at netip.AddrPort, scope uint32) error {
	a := cmAddr(at, scope)
	return errno(C.nova_cm_listen(i.p, &a))
}

// Port is the local port.
func (i CMID) Port() uint16 { p := C.rdma_get_src_port(i.p); return uint16(p)<<8 | uint16(p)>>8 }

// Device is the device that it is bound to, and its port; "" before it is.
func (i CMID) Device() (name string, port int) {
	if i.p.verbs == nil {
		return "", 0
	}
	return C.GoString(C.ibv_get_device_name(i.p.verbs.device)), int(i.p.port_num)
}

// ResolveAddr looks for the device; CMAddress or CMAddressError tells. An invalid
// from leaves the choice to the kernel.
func (i CMID) ResolveAddr(from, to netip.AddrPort, scope uint32, ms int) error {
	f, t := cmAddr(from, scope), cmAddr(to, scope)
	return errno(C.nova_cm_resolve(i.p, &f, &t, C.int(ms)))
}

// ResolveRoute looks for the way; CMRoute or CMRouteError tells.
func (i CMID) ResolveRoute(ms int) error { return errno(C.nova_cm_route(i.p, C.int(ms))) }

// CMParam is what a connection asks of its queue pair, in the encodings of verbs.
type CMParam struct {
	QPN                                       uint32
	Reads, Timeout, Retry, RNRRetry, RNR, MTU uint8
}

func (p CMParam) c() C.struct_nova_cm_param {
	return C.struct_nova_cm_param{
		qpn: C.uint32_t(p.QPN), reads: C.uint8_t(p.Reads), timeout: C.uint8_t(p.Timeout), retry: C.uint8_t(p.Retry),
		rnr_retry: C.uint8_t(p.RNRRetry), rnr_timer: C.uint8_t(p.RNR), mtu: C.uint8_t(p.MTU),
	}
}

// Connect asks for a connection; CMResponse, CMRejected or CMUnreachable tells.
func (i CMID) Connect(p CMParam, data []byte) error {
	c := p.c()
	return errno(C.nova_cm_connect(i.p, &c, unsafe.Pointer(unsafe.SliceData(data)), C.int(len(data))))
}

// Accept answers a request, with the queue pair Ready; CMEstablished tells.
func (i CMID) Accept(p CMParam, data []byte) error {
	c := p.c()
	return errno(C.nova_cm_accept(i.p, &c, unsafe.Pointer(unsafe.SliceData(data)), C.int(len(data))))
}

// Reject refuses a request.
func (i CMID) Reject(data []byte) error {
	return errno(C.nova_cm_reject(i.p, unsafe.Pointer(unsafe.SliceData(data)), C.int(len(data))))
}

// Ready takes the queue pair from Init to RTS. It follows CMResponse or CMRequest;
// EMSGSIZE when the path's MTU is smaller than the one asked for.
func (i CMID) Ready(q QP, p CMParam) error {
	c := p.c()
	return errno(C.nova_cm_ready(i.p, q.p, &c))
}

// Establish tells the other side that the answer has come.
func (i CMID) Establish() error { return errno(C.nova_cm_establish(i.p)) }

// Disconnect ends the connection, or confirms that the other side has.
func (i CMID) Disconnect() error { return errno(C.nova_cm_disconnect(i.p)) }

// Migrate moves it, and its events, to another channel.
func (i CMID) Migrate(to CMChannel) error { return errno(C.nova_cm_migrate(i.p, to.p)) }

// Close destroys it.
func (i CMID) Close() error { return errno(C.nova_cm_destroy(i.p)) }
