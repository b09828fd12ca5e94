package shm

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/shm"
)

// dup duplicates descriptors for a message: the originals may be closed before
// it has been sent.
func dup(fds ...int) ([]int, error) {
	out := make([]int, 0, len(fds))
	for _, fd := range fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			lane.CloseFDs(out)
			return nil, fmt.Errorf("%w: duplicate a descriptor: %w: raise RLIMIT_NOFILE (ulimit -n)", shm.ErrLimit, err)
		}
		out = append(out, d)
	}
	return out, nil
}
