package rdma

import (
	"context"
	"fmt"
)

// Provider opens devices of one kind. Its methods may be called concurrently.
type Provider interface {
	// Name is what users call it.
	Name() string
	// Devices lists what Open can open. None is ErrNoDevice, which says what is
	// missing and how to get it.
	Devices() ([]DeviceInfo, error)
	// Open opens a device by its name; "" is the first whose port is active.
	// ErrNoDevice, ErrPort, ErrLimit.
	Open(device string) (Device, error)
}

// Device is an open device: one port of it, the one that DeviceInfo describes.
// Its methods may be called concurrently.
type Device interface {
	// Info tells the device's name, limits and port, as they are now.
	Info() DeviceInfo
	// NewDomain makes a protection domain: queue pairs reach regions of their own
	// domain only.
	NewDomain() (Domain, error)
	// Event waits for the next asynchronous event. Of concurrent callers each gets
	// others. ErrClosed after Close; the context's cause when that ends.
	Event(ctx context.Context) (Event, error)
	// Close closes every domain, and then the device.
	Close() error
}

// DeviceInfo describes a device.
type DeviceInfo struct {
	Name     string
	Provider string
	Port     PortState
	MTU      int   // active MTU of the port, bytes of payload a packet
	GIDs     []GID // the port's addresses, by their index
	GID      int   // index of the one in use, -1: none
	Limits   Limits
}

// GID is an address of a port; the zero value is an index that has none.
type GID struct {
	Address   string // as an IPv6 address is written
	Type      string // "RoCE v2", "RoCE v1" or "InfiniBand"
	Interface string // the network interface that it is of, if any
}

// Limits is what one object of a device may have at most.
type Limits struct {
	MaxSend    int `json:"max_send"`    // work requests of a send queue
	MaxRecv    int `json:"max_recv"`    // work requests of a receive queue
	MaxCQ      int `json:"max_cq"`      // completions of a completion queue
	MaxInline  int `json:"max_inline"`  // bytes of an inline request
	MaxMessage int `json:"max_message"` // bytes of a request
	MaxRegion  int `json:"max_region"`  // bytes of a region
	MaxQPs     int `json:"max_qps"`     // queue pairs of the device
}

// PortState is whether a port can carry anything.
type PortState uint8

// The states of a port.
const (
	PortUnknown PortState = iota
	PortDown
	PortActive
)

// String is the state's name.
func (s PortState) String() string {
	switch s {
	case PortDown:
		return "down"
	case PortActive:
		return "active"
	}
	return "unknown"
}

// Event is something that happened to a device and is no completion.
type Event struct {
	Kind EventKind
	QP   uint32 // the queue pair's Num, for EventQPFatal
}

// EventKind is the kind of an Event.
type EventKind uint8

// The kinds of events. A queue pair that fails by a request of its own tells so
// by that request's completion, and providers differ in whether there is an
// EventQPFatal beside it.
const (
	EventPortDown EventKind = iota + 1
	EventPortUp
	EventDeviceGone // nothing works any more; Close what there is
	EventQPFatal    // a queue pair went to Error by no request of its own
	EventCQError    // a completion queue has overflowed
)

// String is the kind's name.
func (k EventKind) String() string {
	switch k {
	case EventPortDown:
		return "port down"
	case EventPortUp:
		return "port up"
	case EventDeviceGone:
		return "device gone"
	case EventQPFatal:
		return "queue pair fatal"
	case EventCQError:
		return "completion queue error"
	}
	return fmt.Sprintf("event %d", uint8(k))
}
