//go:build unix

package torture

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// cutAll shuts down all connections of this process, as a network that fails would,
// and answers how many. It works on descriptors of its own, so that one that is
// closed meanwhile does no harm.
func cutAll() (n int) {
	all, err := os.ReadDir("/dev/fd")
	if err != nil {
		return 0
	}
	for _, e := range all {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			continue
		}
		if _, err := unix.Getpeername(fd); err == nil && unix.Shutdown(fd, unix.SHUT_RDWR) == nil {
			n++
		}
		unix.Close(fd)
	}
	return n
}
