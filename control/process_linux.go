package control

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peerProcess is a hold on the process at the other end of a Unix socket: a pidfd, so
// that no later process of the same number is taken for it.
type peerProcess struct {
	f   *os.File
	raw syscall.RawConn
}

// processOf takes hold of the peer's process: as the kernel knows it by the socket
// (Linux 6.5), whatever the pid namespaces, else by its number, which is checked
// anew behind the hold. It answers nil where neither can be had.
func processOf(c *net.UnixConn, pid int) *peerProcess {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	_ = raw.Control(func(s uintptr) {
		if got, err := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
			fd = got
		}
	})
	if fd < 0 {
		fd = pidfdByNumber(raw, pid)
	}
	if fd < 0 || unix.SetNonblock(fd, true) != nil {
		return nil
	}
	p := &peerProcess{f: os.NewFile(uintptr(fd), "pidfd")}
	if p.raw, err = p.f.SyscallConn(); err != nil {
		p.f.Close()
		return nil
	}
	return p
}

// pidfdByNumber is a pidfd of the peer whose process has this number, -1 where it
// cannot be had. A number is given anew only after the process is gone, and its socket
// with it: one that still stands is that of the process that is held.
func pidfdByNumber(socket syscall.RawConn, pid int) int {
	if pid <= 0 {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	gone := true
	_ = socket.Control(func(s uintptr) { gone = ready(int(s), unix.POLLRDHUP, 0) })
	if gone {
		unix.Close(fd)
		return -1
	}
	return fd
}

// ended tells whether the process has ended: none of its threads runs any more. It
// waits for that as long as within, as a thread: it is woken by the kernel itself.
func (p *peerProcess) ended(within time.Duration) (yes bool) {
	_ = p.raw.Control(func(fd uintptr) { yes = ready(int(fd), unix.POLLIN, within) })
	return yes
}

// wait waits for the process's end; it answers false after close.
func (p *peerProcess) wait() bool {
	return p.raw.Read(func(fd uintptr) bool { return ready(int(fd), unix.POLLIN, 0) }) == nil
}

func (p *peerProcess) close() { p.f.Close() }

// ready tells whether an event has come at a descriptor, or comes within some
// milliseconds.
func ready(fd int, event int16, within time.Duration) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: event}}, int(within.Milliseconds()))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
