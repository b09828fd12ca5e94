package control

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerCred tells who is on the other side, as the kernel knows it.
func peerCred(c *net.UnixConn) (uid, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, -1, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		err = e
	}
	if err != nil {
		return -1, -1, fmt.Errorf("%w: its credentials cannot be read: %w", ErrPeerRefused, err)
	}
	return int(cred.Uid), int(cred.Pid), nil
}

// hostIdentity tells kernels apart.
func hostIdentity() string { return readTrimmed("/proc/sys/kernel/random/boot_id") }
