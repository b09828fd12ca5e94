//go:build verbs && cgo && linux

package ibv

// What is passed to C is memory of the caller without a Go pointer in it, and C
// keeps none of it: so nothing needs to be pinned, and noescape and nocallback are
// true. All that C returns was allocated by C.

/*
#cgo CFLAGS: -std=c11 -O2 -Wall -D_GNU_SOURCE
#cgo LDFLAGS: -libverbs
#cgo noescape nova_post_send
#cgo nocallback nova_post_send
#cgo noescape nova_post_recv
#cgo nocallback nova_post_recv
#cgo noescape nova_poll
#cgo nocallback nova_poll
#include <stdlib.h>
#include "nova_verbs.h"
*/
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/novastream/novastream/rdma"
)

// The layouts that C shares with package rdma.
const (
	_ = uint(unsafe.Sizeof(rdma.SendWR{})-C.sizeof_struct_nova_send_wr) + uint(C.sizeof_struct_nova_send_wr-unsafe.Sizeof(rdma.SendWR{}))
	_ = uint(unsafe.Sizeof(rdma.RecvWR{})-C.sizeof_struct_nova_recv_wr) + uint(C.sizeof_struct_nova_recv_wr-unsafe.Sizeof(rdma.RecvWR{}))
	_ = uint(unsafe.Sizeof(rdma.Completion{})-C.sizeof_struct_nova_completion) + uint(C.sizeof_struct_nova_completion-unsafe.Sizeof(rdma.Completion{}))
)

// errno is the error of what C returned, nil from 0 on.
func errno(rc C.int) error {
	if rc >= 0 {
		return nil
	}
	return syscall.Errno(-rc)
}

// positive is the same for what the library returns: an errno that is not
// negated, and sometimes -1.
func positive(rc C.int) error {
	if rc == 0 {
		return nil
	}
	if rc < 0 {
		return syscall.EIO
	}
	return syscall.Errno(rc)
}

// ForkInit makes fork safe for registered memory. It must come before all else.
func ForkInit() error { return positive(C.ibv_fork_init()) }

// PD is a protection domain.
type PD struct{ p *C.struct_ibv_pd }

// AllocPD makes a protection domain.
func (c Context) AllocPD() (PD, error) {
	p := C.ibv_alloc_pd(c.p)
	if p == nil {
		return PD{}, syscall.ENOMEM
	}
	return PD{p}, nil
}

// Close frees it; nothing made from it may be left.
func (d PD) Close() error { return positive(C.ibv_dealloc_pd(d.p)) }

// MR is registered memory.
type MR struct{ p *C.struct_ibv_mr }

// Register registers memory that Go's collector does not own.
func (d PD) Register(mem []byte, write, read bool) (MR, error) {
	var mr MR
	rc := C.nova_reg(d.p, unsafe.Pointer(unsafe.SliceData(mem)), C.size_t(len(mem)), boolean(write), boolean(read), &mr.p)
	return mr, errno(rc)
}

// Keys are the local and the remote key.
func (m MR) Keys() (local, remote uint32) { return uint32(m.p.lkey), uint32(m.p.rkey) }

// Close deregisters the memory.
func (m MR) Close() error { return positive(C.ibv_dereg_mr(m.p)) }

// CQ is a completion queue with a completion channel of its own.
type CQ struct {
	p       *C.struct_ibv_cq
	channel *C.struct_ibv_comp_channel
}

// CreateCQ makes a completion queue.
func (c Context) CreateCQ(depth int) (CQ, error) {
	var q CQ
	rc := C.nova_create_cq(c.p, C.int(depth), &q.channel, &q.p)
	return q, errno(rc)
}

// FD is the descriptor that can be read when an event has come.
func (q CQ) FD() int { return int(q.channel.fd) }

// ID is what an Event of this queue carries.
func (q CQ) ID() uintptr { return uintptr(unsafe.Pointer(q.p)) }

// Poll takes completions.
func (q CQ) Poll(to []rdma.Completion) (int, error) {
	if len(to) == 0 {
		return 0, nil
	}
	n := C.nova_poll(q.p, (*C.struct_nova_completion)(unsafe.Pointer(&to[0])), C.int(len(to)))
	return max(int(n), 0), errno(n)
}

// Arm asks for an event at the next completion.
func (q CQ) Arm() error { return errno(C.nova_arm(q.p)) }

// Event takes an event; EAGAIN when FD does not block and there is none.
func (q CQ) Event() error { return errno(C.nova_cq_event(q.channel)) }

// Close destroys the queue and its channel.
func (q CQ) Close() error {
	if err := positive(C.ibv_destroy_cq(q.p)); err != nil {
		return err
	}
	return positive(C.ibv_destroy_comp_channel(q.channel))
}

func boolean(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
