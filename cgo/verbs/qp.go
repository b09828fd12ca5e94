//go:build verbs && cgo && linux

package ibv

// #include "nova_verbs.h"
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/novastream/novastream/rdma"
)

// QP is a reliable connected queue pair.
type QP struct{ p *C.struct_ibv_qp }

// CreateQP makes a queue pair, in state Reset.
func (d PD) CreateQP(send, recv CQ, maxSend, maxRecv, maxInline int) (QP, error) {
	var q QP
	rc := C.nova_create_qp(d.p, send.p, recv.p, C.uint32_t(maxSend), C.uint32_t(maxRecv), C.uint32_t(maxInline), &q.p)
	return q, errno(rc)
}

// Num is its number.
func (q QP) Num() uint32 { return uint32(q.p.qp_num) }

// Init takes it to Init.
func (q QP) Init(port int) error { return errno(C.nova_init(q.p, C.int(port))) }

// Path is how Connect reaches the other queue pair, in the encodings of verbs.
type Path struct {
	QPN, PSN, LocalPSN                 uint32
	LID                                uint16
	Port, GIDIndex                     uint8
	Global                             bool
	GID                                [16]byte
	MTU, Timeout, Retry, RNRRetry, RNR uint8
	Reads                              uint8 // READs in flight, each way
}

// Connect takes it from Init to RTS.
func (q QP) Connect(p Path) error {
	path := C.struct_nova_path{
		qpn: C.uint32_t(p.QPN), psn: C.uint32_t(p.PSN), local_psn: C.uint32_t(p.LocalPSN), lid: C.uint16_t(p.LID),
		port: C.uint8_t(p.Port), gid_index: C.uint8_t(p.GIDIndex), global: C.uint8_t(boolean(p.Global)),
		mtu: C.uint8_t(p.MTU), timeout: C.uint8_t(p.Timeout), retry: C.uint8_t(p.Retry),
		rnr_retry: C.uint8_t(p.RNRRetry), rnr_timer: C.uint8_t(p.RNR), reads: C.uint8_t(p.Reads),
	}
	for i, b := range p.GID {
		path.gid[i] = C.uint8_t(b)
	}
	return errno(C.nova_connect(q.p, &path))
}

// State asks for its state.
func (q QP) State() (rdma.State, error) {
	s := C.nova_state(q.p)
	if err := errno(s); err != nil {
		return 0, err
	}
	switch s {
	case C.IBV_QPS_RESET:
		return rdma.Reset, nil
	case C.IBV_QPS_INIT:
		return rdma.Init, nil
	case C.IBV_QPS_RTR:
		return rdma.RTR, nil
	case C.IBV_QPS_RTS:
		return rdma.RTS, nil
	}
	return rdma.Error, nil
}

// Abort takes it to Error.
func (q QP) Abort() error { return errno(C.nova_abort(q.p)) }

// Close destroys it.
func (q QP) Close() error { return positive(C.ibv_destroy_qp(q.p)) }

// PostSend posts, and returns how many are posted. Every Op must be one to post.
func (q QP) PostSend(wrs []rdma.SendWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	return posted(C.nova_post_send(q.p, (*C.struct_nova_send_wr)(unsafe.Pointer(&wrs[0])), C.int(len(wrs))))
}

// PostRecv posts receives, and returns how many are posted.
func (q QP) PostRecv(wrs []rdma.RecvWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	return posted(C.nova_post_recv(q.p, (*C.struct_nova_recv_wr)(unsafe.Pointer(&wrs[0])), C.int(len(wrs))))
}

func posted(rc C.uint64_t) (int, error) {
	n := int(uint32(rc))
	if e := syscall.Errno(rc >> 32); e != 0 {
		return n, e
	}
	return n, nil
}
