//go:build verbs && cgo && linux

package verbs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/novastream/novastream/rdma"
)

func (q *qp) PostSend(wrs []rdma.SendWR) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return 0, fmt.Errorf("%w: queue pair", rdma.ErrClosed)
	}
	if q.state != rdma.RTS && q.state != rdma.Error {
		return 0, fmt.Errorf("%w: PostSend in %v", rdma.ErrState, q.state)
	}
	n, err := len(wrs), error(nil)
	if free := q.sends.free(); n > free && !q.failed.Load() {
		n, err = free, fullError("send", q.opt.MaxSend)
	}
	signaled := 0
	for i := range wrs[:n] {
		w := &wrs[i]
		if e := q.check(w); e != nil {
			n, err = i, e
			break
		}
		if w.Flags&rdma.Signaled != 0 {
			q.sends.mark(i, signaled)
			signaled++
		}
	}
	posted, e := q.q.PostSend(wrs[:n])
	if e != nil {
		err = q.postError("send", e)
	}
	for i := n - 1; i >= posted; i-- {
		if wrs[i].Flags&rdma.Signaled != 0 {
			signaled--
		}
	}
	q.sends.took(posted, signaled)
	return posted, err
}

func (q *qp) PostRecv(wrs []rdma.RecvWR) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return 0, fmt.Errorf("%w: queue pair", rdma.ErrClosed)
	}
	n, err := len(wrs), error(nil)
	if free := q.recvs.free(); n > free && !q.failed.Load() {
		n, err = free, fullError("receive", q.opt.MaxRecv)
	}
	for i := range n {
		q.recvs.mark(i, i)
	}
	posted, e := q.q.PostRecv(wrs[:n])
	if e != nil {
		err = q.postError("receive", e)
	}
	q.recvs.took(posted, posted)
	if q.state == rdma.Error || q.failed.Load() {
		// rdma_rxe flushes what is there when it goes to Error, and looks no more.
		_ = q.q.Abort()
	}
	return posted, err
}

// check says what a request has that no device can do.
func (q *qp) check(w *rdma.SendWR) error {
	switch {
	case w.Op < rdma.OpWrite || w.Op > rdma.OpRead:
		return fmt.Errorf("%w: %v cannot be posted", rdma.ErrRequest, w.Op)
	case w.Flags&rdma.Inline == 0:
		return nil
	case w.Op == rdma.OpRead:
		return fmt.Errorf("%w: READ cannot be inline", rdma.ErrRequest)
	case int(w.Local.Length) > q.opt.MaxInline:
		return fmt.Errorf("%w: %d bytes inline, MaxInline is %d", rdma.ErrRequest, w.Local.Length, q.opt.MaxInline)
	}
	return nil
}

func fullError(which string, size int) error {
	return fmt.Errorf("%w: the %s queue has %d places", rdma.ErrQueueFull, which, size)
}

func (q *qp) postError(which string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w: the device's %s queue", rdma.ErrQueueFull, which)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w: the device refuses it", rdma.ErrRequest)
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w: %w", rdma.ErrDeviceGone, err)
	}
	return fmt.Errorf("verbs: post to the %s queue: %w", which, err)
}

// polled notes that a completion of the queue pair has been polled.
func (q *qp) polled(c *rdma.Completion) {
	if c.Status != rdma.Success {
		// Which queue it is of is not said, and requests complete that are not
		// signalled: from now on the device's own count must do.
		q.failed.Store(true)
		return
	}
	if q.failed.Load() {
		return
	}
	if c.Op == rdma.OpRecv || c.Op == rdma.OpRecvWrite {
		q.recvs.done()
	} else {
		q.sends.done()
	}
}
