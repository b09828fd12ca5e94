package shm

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// eventBell is an eventfd, waited on through Go's netpoller: thousands of them
// need no thread.
type eventBell struct {
	f      *os.File
	fd     int
	closed atomic.Bool
	buf    [8]byte
	timed  bool
}

// one is what a ring adds to an eventfd's counter.
var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// NewBell makes a bell that can be passed to another process.
func NewBell() (Bell, error) { return newEventBell() }

func newEventBell() (*eventBell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, explain("eventfd", 8, err)
	}
	return &eventBell{f: os.NewFile(uintptr(fd), "eventfd"), fd: fd}, nil
}

// OpenBell takes a bell that a peer has made. It owns fd in every case.
func OpenBell(fd int) (Bell, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || link != "anon_inode:[eventfd]" {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: descriptor %d is %q", ErrNotBell, fd, link)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("shm: eventfd: %w", err)
	}
	return &eventBell{f: os.NewFile(uintptr(fd), "eventfd"), fd: fd}, nil
}

func (b *eventBell) FD() int { return b.fd }

func (b *eventBell) Ring() { b.f.Write(one) }

func (b *eventBell) Wait(d time.Duration) error {
	if d > 0 {
		b.f.SetReadDeadline(time.Now().Add(d))
		b.timed = true
	} else if b.timed {
		b.f.SetReadDeadline(time.Time{})
		b.timed = false
	}
	_, err := b.f.Read(b.buf[:])
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if b.closed.Load() {
		return fmt.Errorf("%w: bell", ErrClosed)
	}
	return fmt.Errorf("shm: wait on eventfd: %w", err)
}

func (b *eventBell) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	return b.f.Close()
}
