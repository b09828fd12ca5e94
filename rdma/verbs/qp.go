//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// maxReads is how many READs may be in flight, each way, where the device can.
const maxReads = 16

// qp is a queue pair.
type qp struct {
	dom            *domain
	opt            rdma.QPOptions
	sendCQ, recvCQ *cq
	num            uint32
	psn            uint32
	local          address // of the port, when the queue pair was made
	gid            int

	sends, recvs places
	failed       atomic.Bool // a completion told so: places are no longer counted

	mu     sync.RWMutex // held to read by what uses q, to write by what changes or destroys it
	q      ibv.QP
	state  rdma.State // as far as this side has taken it
	closed bool
}

// create makes the queue pair, and makes it known to its completion queues, of
// which the domain, whose lock is held, lets none go meanwhile.
func (q *qp) create() error {
	p := q.dom.dev.port
	var err error
	if q.local, q.gid, err = p.address(); err != nil {
		return err
	}
	var seq [4]byte
	_, _ = rand.Read(seq[:])
	q.psn = binary.BigEndian.Uint32(seq[:]) & 0xffffff
	if q.q, err = q.dom.pd.CreateQP(q.sendCQ.q, q.recvCQ.q, q.opt.MaxSend, q.opt.MaxRecv, q.opt.MaxInline); err != nil {
		return refused(fmt.Sprintf("a queue pair for %d sends and %d receives", q.opt.MaxSend, q.opt.MaxRecv), err)
	}
	if err := q.q.Init(p.number); err != nil {
		return errors.Join(fmt.Errorf("verbs: a queue pair to Init: %w", err), q.q.Close())
	}
	q.num, q.state = q.q.Num(), rdma.Init
	for _, c := range []*cq{q.sendCQ, q.recvCQ} {
		c.mu.Lock()
		c.qps[q.num] = q
		c.mu.Unlock()
	}
	return nil
}

func (q *qp) Num() uint32 { return q.num }

func (q *qp) Address() []byte {
	a := q.local
	a.qpn, a.psn = q.num, q.psn
	return a.marshal()
}

// Connect does not look at the context while the kernel finds the way to the other
// host, which takes some seconds at most.
func (q *qp) Connect(ctx context.Context, remote []byte, opt rdma.ConnectOptions) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	opt, err := opt.Normalize()
	if err != nil {
		return err
	}
	to, err := parseAddress(remote)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.unconnected(); err != nil {
		return err
	}
	if err := q.dom.dev.port.usable(); err != nil {
		return err
	}
	if to.ethernet != q.local.ethernet {
		return fmt.Errorf("%w: one port is InfiniBand, the other Ethernet: choose devices of one network", rdma.ErrAddress)
	}
	mtu, err := pathMTU(opt.MTU, q.local.mtu, to.mtu)
	if err != nil {
		return err
	}
	err = q.q.Connect(ibv.Path{
		QPN: to.qpn, PSN: to.psn, LocalPSN: q.psn, LID: to.lid, GID: to.gid,
		Port: uint8(q.dom.dev.port.number), GIDIndex: uint8(max(q.gid, 0)), Global: to.ethernet,
		MTU: mtu, Timeout: timeoutCode(opt.Timeout), Retry: uint8(opt.RetryCount),
		RNRRetry: uint8(opt.RNRRetry), RNR: rnrCode(opt.RNRTimer),
		Reads: uint8(min(q.dom.dev.port.attr.MaxReads, maxReads)),
	})
	if err != nil {
		return connectError(to, err)
	}
	q.state = rdma.RTS
	return nil
}

// connectError says why the kernel could not connect to an address.
func connectError(to address, err error) error {
	switch {
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("%w: GID %x: %w: see to the route between the two interfaces", rdma.ErrRetryExceeded, to.gid, err)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w: the device refuses queue pair %#x at GID %x: %w: both GIDs must be of one kind (`nova doctor rdma` lists them)", rdma.ErrAddress, to.qpn, to.gid, err)
	}
	return fmt.Errorf("verbs: connect to queue pair %#x: %w", to.qpn, err)
}

func (q *qp) State() rdma.State {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return rdma.Error
	}
	s, err := q.q.State()
	if err != nil {
		return rdma.Error
	}
	return s
}

func (q *qp) Abort() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return fmt.Errorf("%w: queue pair", rdma.ErrClosed)
	}
	return q.abort()
}

// abort takes it to Error. The caller holds mu.
func (q *qp) abort() error {
	if err := q.q.Abort(); err != nil {
		return fmt.Errorf("verbs: a queue pair to Error: %w", err)
	}
	q.state = rdma.Error
	return nil
}

func (q *qp) Close() error {
	if !closing(q.dom, q.dom.qps, q) {
		return nil
	}
	q.mu.Lock()
	q.closed = true
	err := q.abort()
	if derr := q.q.Close(); derr != nil {
		err = errors.Join(err, fmt.Errorf("verbs: destroy a queue pair: %w", derr))
	} else {
		err = nil
	}
	q.mu.Unlock()
	for _, c := range []*cq{q.sendCQ, q.recvCQ} {
		c.mu.Lock()
		if c.qps[q.num] == q {
			delete(c.qps, q.num)
		}
		c.mu.Unlock()
	}
	return err
}
