//go:build unix

package shm

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/edsrzf/mmap-go"
)

// file is a segment in a file, for where a bind mount must be used. Whoever can
// write the file can also truncate it under its readers: use it between
// processes that trust each other, and memfds elsewhere.
type file struct {
	mem    mmap.MMap
	f      *os.File
	closed atomic.Bool
}

func (s *file) Bytes() []byte { return s.mem }
func (s *file) FD() int       { return int(s.f.Fd()) }
func (s *file) Kind() string  { return "file" }

func (s *file) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return errors.Join(s.mem.Unmap(), s.f.Close())
}

// CreateFile makes a segment in a new file with mode 0600, with its memory
// allocated. Removing the file is the caller's.
func CreateFile(path string, size int) (Segment, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("shm: create segment file: %w", err)
	}
	if err := allocate(f, int64(size)); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: allocate %d bytes in %s: %w: make room on that filesystem", ErrLimit, size, path, err), f.Close(), os.Remove(path))
	}
	mem, err := mmap.Map(f, mmap.RDWR, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("shm: map %s: %w", path, err), f.Close(), os.Remove(path))
	}
	return &file{mem: mem, f: f}, nil
}

// OpenFile maps a segment that a peer has made with CreateFile. A file that is
// a link, that another user owns, that others may write or that has another
// size is refused.
func OpenFile(path string, size int) (Segment, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("shm: open segment file: %w", err)
	}
	if err := checkFile(f, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mem, err := mmap.Map(f, mmap.RDWR, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("shm: map %s: %w", path, err), f.Close())
	}
	return &file{mem: mem, f: f}, nil
}

func checkFile(f *os.File, size int) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("shm: %w", err)
	}
	sys, _ := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return fmt.Errorf("%w: %s is no regular file", ErrRefused, f.Name())
	case sys != nil && int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to user %d, this is %d", ErrRefused, f.Name(), sys.Uid, os.Geteuid())
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s has mode %v: others may write it: chmod 600", ErrRefused, f.Name(), st.Mode().Perm())
	case st.Size() != int64(size):
		return fmt.Errorf("%w: %s has %d bytes, %d were agreed", ErrWrongSize, f.Name(), st.Size(), size)
	}
	return nil
}
