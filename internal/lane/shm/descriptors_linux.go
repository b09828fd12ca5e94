package shm

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/shm"
)

// descriptors makes those of a segment and its bells for a message: what this side has
// may be closed before it has been sent.
func descriptors(seg shm.Segment, bells ...shm.Bell) ([]int, error) {
	fd, err := unix.FcntlInt(uintptr(seg.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: duplicate a descriptor: %w: raise RLIMIT_NOFILE (ulimit -n)", shm.ErrLimit, err)
	}
	out := append(make([]int, 0, 1+len(bells)), fd)
	for _, b := range bells {
		if fd, err = b.Pass(); err != nil {
			lane.CloseFDs(out)
			return nil, err
		}
		out = append(out, fd)
	}
	return out, nil
}
