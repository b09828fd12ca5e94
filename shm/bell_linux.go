package shm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventBell is an eventfd, waited on through Go's netpoller: thousands of them
// need no thread.
//
// The peer has the same descriptor, and with it what is not this side's alone: the
// counter, which it may leave at its most or take away at any time, and O_NONBLOCK,
// which it may clear. So no call here trusts that it will not block: reads say for
// themselves that they do not, and nothing is written to a counter that is full.
// Only a peer that fills the counter between the look and the write, and has cleared
// O_NONBLOCK, can hold a caller of Ring.
type eventBell struct {
	f      *os.File
	raw    syscall.RawConn
	fd     int
	closed atomic.Bool
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
	return bellOf(fd)
}

func bellOf(fd int) (*eventBell, error) {
	b := &eventBell{f: os.NewFile(uintptr(fd), "eventfd"), fd: fd}
	var err error
	if b.raw, err = b.f.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("shm: eventfd: %w", err), b.f.Close())
	}
	return b, nil
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
	return bellOf(fd)
}

func (b *eventBell) FD() int { return b.fd }

func (b *eventBell) Ring() { _ = b.raw.Control(ring) }

// ring rings an eventfd, unless it is full: then it has been rung.
func ring(fd uintptr) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(p, 0); n > 0 || err != nil {
		_, _ = unix.Write(int(fd), one)
	}
}

// hear takes the rings of an eventfd, and tells whether there were any.
func hear(fd uintptr) bool {
	var n uint64
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&n))}
	iov.SetLen(8)
	const here = ^uintptr(0) // no offset
	_, _, errno := unix.Syscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&iov)), 1, here, here, unix.RWF_NOWAIT)
	if errno == unix.EOPNOTSUPP || errno == unix.ENOSYS { // before Linux 5.8
		return hearOld(fd)
	}
	runtime.KeepAlive(&n)
	return errno == 0
}

// hearOld is hear where a read cannot say that it does not block. It is apart because
// its buffer would be allocated under the race detector.
func hearOld(fd uintptr) bool {
	var b [8]byte
	_, err := unix.Read(int(fd), b[:])
	return err == nil
}

func (b *eventBell) Wait(d time.Duration) error {
	if d > 0 {
		b.f.SetReadDeadline(time.Now().Add(d))
		b.timed = true
	} else if b.timed {
		b.f.SetReadDeadline(time.Time{})
		b.timed = false
	}
	err := b.raw.Read(hear)
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
