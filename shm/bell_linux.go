package shm

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pipeBell is a pipe, waited on through Go's netpoller: thousands of them need no
// thread.
//
// A peer has the same pipe, but no open file in common with this side: each opens it
// anew, for itself. So it may fill it or take rings away, but not clear the O_NONBLOCK
// by which no call here ever blocks, as it could with an eventfd, of which there is but
// one open file.
type pipeBell struct {
	f      *os.File
	raw    syscall.RawConn
	fd     int
	closed atomic.Bool
	timed  bool
}

// NewBell makes a bell that can be passed to another process.
func NewBell() (Bell, error) { return newPipeBell() }

func newPipeBell() (*pipeBell, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, explain("pipe", 0, err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	// Who may have it is a matter of who is given it: another user must open it too.
	if err := unix.Fchmod(ends[0], 0o666); err != nil {
		return nil, explain("pipe", 0, err)
	}
	fd, err := openAnew(ends[0])
	if err != nil {
		return nil, err
	}
	return bellOf(fd)
}

// openAnew makes another open file of a pipe, for reading and writing.
func openAnew(fd int) (int, error) {
	anew, err := unix.Open(selfFD(fd), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, explain("pipe", 0, err)
	}
	return anew, nil
}

func selfFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func bellOf(fd int) (*pipeBell, error) {
	b := &pipeBell{f: os.NewFile(uintptr(fd), "bell"), fd: fd}
	var err error
	if b.raw, err = b.f.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("shm: bell: %w", err), b.f.Close())
	}
	return b, nil
}

// OpenBell takes a bell that a peer has made. It owns fd in every case.
func OpenBell(fd int) (Bell, error) {
	defer unix.Close(fd)
	link, err := os.Readlink(selfFD(fd))
	if err != nil || !strings.HasPrefix(link, "pipe:[") { // a file's name begins with a slash
		return nil, fmt.Errorf("%w: descriptor %d is %q", ErrNotBell, fd, link)
	}
	own, err := openAnew(fd)
	if err != nil {
		return nil, err
	}
	return bellOf(own)
}

func (b *pipeBell) FD() int { return b.fd }

func (b *pipeBell) Pass() (int, error) { return openAnew(b.fd) }

func (b *pipeBell) Ring() { _ = b.raw.Control(ring) }

// one is what a ring puts into the pipe.
var one = []byte{1}

// ring rings a bell; a pipe that is full has been rung.
func ring(fd uintptr) { _, _ = unix.Write(int(fd), one) }

// heard is where rings go. Nobody reads it.
var heard [4096]byte

// hear takes the rings of a bell, and tells whether there were any. More than fit are
// heard as rings again.
func hear(fd uintptr) bool {
	n, _, errno := unix.Syscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&heard)), uintptr(len(heard)))
	return errno == 0 && n > 0
}

func (b *pipeBell) Wait(d time.Duration) error {
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
	return fmt.Errorf("shm: wait on bell: %w", err)
}

func (b *pipeBell) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	return b.f.Close()
}
