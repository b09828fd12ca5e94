package soft

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// leastPatience is for kernels that are only slow to acknowledge.
const leastPatience = 100 * time.Millisecond

// giveUpAfter ends a connection over which what was sent has not been acknowledged
// for so long: by the other kernel, so it is a host that has gone without a word.
func giveUpAfter(c net.Conn, d time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			// Where it cannot be set, the kernel's own, longer patience holds.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(d, leastPatience).Milliseconds()))
		})
	}
}
