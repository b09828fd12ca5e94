package shm

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Set is many bells for one who waits: an epoll descriptor, which Go's netpoller
// can itself wait on. It is a Bell; a ring of any bell in it is a ring of it.
//
// One goroutine at a time adds, removes and waits.
type Set struct {
	f      *os.File
	raw    syscall.RawConn
	fd     int
	own    *pipeBell
	closed atomic.Bool
	ready  func(uintptr) bool
	events [16]unix.EpollEvent
	n      int
	timed  bool
}

// NewSet makes an empty set.
func NewSet() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, explain("epoll", 0, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("shm: epoll: %w", err)
	}
	s := &Set{f: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if s.raw, err = s.f.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("shm: epoll: %w", err), s.f.Close())
	}
	if s.own, err = newPipeBell(); err != nil {
		return nil, errors.Join(err, s.f.Close())
	}
	s.ready = func(fd uintptr) bool {
		s.n, _ = unix.EpollWait(int(fd), s.events[:], 0)
		return s.n > 0
	}
	return s, s.Add(s.own)
}

// Add adds a bell.
func (s *Set) Add(b Bell) error {
	switch b := b.(type) {
	case *localBell:
		b.set.Store(s)
		s.Ring() // it may have been rung
		return nil
	case *pipeBell:
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(b.fd)}
		if err := unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, b.fd, &ev); err != nil {
			return explain("epoll", 0, err)
		}
		return nil
	}
	return fmt.Errorf("%w: a set of %T", ErrUnsupported, b)
}

// Remove removes a bell, which must not be closed yet.
func (s *Set) Remove(b Bell) {
	switch b := b.(type) {
	case *localBell:
		b.set.CompareAndSwap(s, nil)
	case *pipeBell:
		if !s.closed.Load() {
			unix.EpollCtl(s.fd, unix.EPOLL_CTL_DEL, b.fd, nil)
		}
	}
}

// FD is -1: a set is not passed.
func (s *Set) FD() int { return -1 }

// Pass answers ErrUnsupported: a set is not passed.
func (s *Set) Pass() (int, error) { return -1, fmt.Errorf("%w: a set is not passed", ErrUnsupported) }

// Ring rings the set itself.
func (s *Set) Ring() { s.own.Ring() }

// Wait is Bell's.
func (s *Set) Wait(d time.Duration) error {
	if d > 0 {
		s.f.SetReadDeadline(time.Now().Add(d))
		s.timed = true
	} else if s.timed {
		s.f.SetReadDeadline(time.Time{})
		s.timed = false
	}
	if err := s.raw.Read(s.ready); err != nil {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case s.closed.Load():
			return fmt.Errorf("%w: set of bells", ErrClosed)
		}
		return fmt.Errorf("shm: wait on epoll: %w", err)
	}
	for _, ev := range s.events[:s.n] {
		hear(uintptr(ev.Fd)) // to zero, or it rings for ever
	}
	return nil
}

// Close closes the set, not the bells in it.
func (s *Set) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return errors.Join(s.f.Close(), s.own.Close())
}
