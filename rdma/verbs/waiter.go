//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/rdma"
)

// waiter waits for a descriptor of libibverbs in Go's netpoller. It has a
// duplicate of it, because the library closes its own. Both share O_NONBLOCK, so
// that what the library reads from it never blocks.
type waiter struct {
	file *os.File
	raw  syscall.RawConn
	turn chan struct{} // held by the one that waits
	gone atomic.Bool   // close was called
}

func newWaiter(fd int, name string) (*waiter, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: a descriptor for %s: %w: raise ulimit -n", rdma.ErrLimit, name, err)
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		_ = unix.Close(dup)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w := &waiter{file: os.NewFile(uintptr(dup), name), turn: make(chan struct{}, 1)}
	if w.raw, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{}) // fails when it cannot be polled
	}
	if err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
}

// wait calls take, and again each time the descriptor can be read, until it
// returns something else than EAGAIN. After a kick it may return nil before.
func (w *waiter) wait(ctx context.Context, take func() error) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-w.turn }()
	if ctx.Done() != nil {
		fired := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			w.kick()
			close(fired)
		})
		defer func() {
			if !stop() {
				<-fired
			}
		}()
	}
	var err error
	rerr := w.raw.Read(func(uintptr) bool {
		for {
			if err = take(); err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	switch {
	case rerr == nil:
		return err
	case errors.Is(rerr, os.ErrDeadlineExceeded):
		_ = w.file.SetReadDeadline(time.Time{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	case w.gone.Load():
		return rdma.ErrClosed
	}
	return rerr
}

// kick makes the one that waits, or the next, return.
func (w *waiter) kick() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) }

// close makes waiting end with ErrClosed. When it has returned, no take runs.
func (w *waiter) close() error {
	w.gone.Store(true)
	if err := w.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
