package shm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/internal/failpoint"
)

// mapping is a segment that was mapped from a descriptor.
type mapping struct {
	mem    []byte
	fd     int
	kind   string
	closed atomic.Bool
}

func (m *mapping) Bytes() []byte { return m.mem }
func (m *mapping) FD() int       { return m.fd }
func (m *mapping) Kind() string  { return m.kind }

func (m *mapping) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	err := unix.Munmap(m.mem)
	if m.fd >= 0 {
		err = errors.Join(err, unix.Close(m.fd))
	}
	return err
}

// seals keep either side from taking the memory away under the other.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// NewMemfd makes a segment in a sealed memfd, whose memory is allocated when it
// returns: touching it later can fail neither side.
func NewMemfd(size int) (Segment, error) { return newMemfd(size, fill) }

// newMemfd makes a segment in a memfd that fill allocates, seals and maps.
func newMemfd(size int, fill func(fd, size int) (*mapping, error)) (Segment, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	taken, err := takeMemory(size)
	if err != nil {
		return nil, err
	}
	defer taken()
	fd, err := memfdCreate()
	if err != nil {
		return nil, explain("memfd_create", size, err)
	}
	failpoint.Hit("memfd/made")
	m, err := fill(fd, size)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return m, nil
}

func memfdCreate() (int, error) {
	fd, err := unix.MemfdCreate("nova-ring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("nova-ring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	return fd, err
}

func fill(fd, size int) (*mapping, error) {
	if err := unix.Fallocate(fd, 0, 0, int64(size)); err != nil {
		return nil, explain("allocate", size, err)
	}
	failpoint.Hit("memfd/allocated")
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, explain("seal", size, err)
	}
	failpoint.Hit("memfd/sealed")
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, explain("map", size, err)
	}
	return &mapping{mem: mem, fd: fd, kind: "memfd"}, nil
}

// OpenMemfd maps a segment that a peer has made: a memfd of exactly size bytes
// whose seals keep the peer from shrinking it. The first readOnly bytes, whole
// pages, cannot be written through the mapping. It owns fd in every case, and
// closes it: the mapping is enough.
func OpenMemfd(fd, size, readOnly int) (Segment, error) {
	defer unix.Close(fd)
	if err := checkSize(size); err != nil {
		return nil, err
	}
	if readOnly < 0 || readOnly > size || readOnly%os.Getpagesize() != 0 {
		return nil, fmt.Errorf("%w: read-only part of %d bytes of %d", ErrSize, readOnly, size)
	}
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: descriptor %d has no seals: %w", ErrNotSealed, fd, err)
	}
	if got&seals != seals {
		return nil, fmt.Errorf("%w: seals %#x, want at least %#x: its owner could shrink it under the reader", ErrNotSealed, got, seals)
	}
	if got&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return nil, fmt.Errorf("%w: seals %#x forbid writing", ErrNotSealed, got)
	}
	if mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || mode&unix.O_ACCMODE != unix.O_RDWR {
		return nil, fmt.Errorf("%w: descriptor %d is not open for reading and writing", ErrNotSealed, fd)
	}
	// A hole in a memfd is filled when it is touched. In huge pages that need not
	// succeed, and who touches it is killed.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return nil, fmt.Errorf("%w: its memory is of type %#x, want plain pages (%#x)", ErrNotSealed, fs.Type, unix.TMPFS_MAGIC)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("shm: stat of the peer's segment: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != int64(size) {
		return nil, fmt.Errorf("%w: %d bytes, %d were agreed", ErrWrongSize, st.Size, size)
	}
	// A peer that has left holes would have the reader allocate them, or fault.
	if st.Blocks*512 < int64(size) {
		return nil, fmt.Errorf("%w: %d of its %d bytes are allocated", ErrWrongSize, st.Blocks*512, size)
	}
	return mapShared(fd, size, readOnly, "memfd")
}

func mapShared(fd, size, readOnly int, kind string) (Segment, error) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, explain("map", size, err)
	}
	if readOnly > 0 {
		if err := unix.Mprotect(mem[:readOnly], unix.PROT_READ); err != nil {
			return nil, errors.Join(explain("protect", size, err), unix.Munmap(mem))
		}
	}
	return &mapping{mem: mem, fd: -1, kind: kind}, nil
}

// explain names the limit behind an errno, and how to raise it.
func explain(what string, size int, err error) error {
	var remedy string
	switch {
	case errors.Is(err, unix.EMFILE):
		var lim unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
		remedy = fmt.Sprintf("this process has all of its %d descriptors in use: raise RLIMIT_NOFILE (ulimit -n)", lim.Cur)
	case errors.Is(err, unix.ENFILE) && what == "pipe":
		remedy = "the system has no descriptor left, or this user no pipe: raise fs.file-max or fs.pipe-user-pages-hard"
	case errors.Is(err, unix.ENFILE):
		remedy = "the system has no descriptor left: raise fs.file-max"
	case errors.Is(err, unix.ENOMEM) && what == "map" && addressSpace() >= 0:
		remedy = fmt.Sprintf("the address space is limited to %d bytes: raise RLIMIT_AS (ulimit -v), or lower the ring's capacity", addressSpace())
	case errors.Is(err, unix.ENOMEM) && (what == "map" || what == "protect"): // which cuts a mapping in two
		remedy = "no memory, or too many mappings: raise vm.max_map_count (now " + procValue("/proc/sys/vm/max_map_count") + ") or the memory limit"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		remedy = "no memory for it: raise the memory limit of the process's cgroup, or lower the ring's capacity"
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %s: %w", ErrUnsupported, what, err)
	default:
		return fmt.Errorf("shm: %s %d bytes: %w", what, size, err)
	}
	return fmt.Errorf("%w: %s %d bytes: %w: %s", ErrLimit, what, size, err, remedy)
}

// addressSpace is the limit on what this process may map, -1 without one.
func addressSpace() int64 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &lim); err != nil || lim.Cur > 1<<62 {
		return -1
	}
	return int64(lim.Cur)
}

// procValue reads a file of one line. Not by os: that has the runtime map memory for
// its poller, and ends the process where no mapping is left, which is to be told here.
func procValue(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "unknown"
	}
	defer unix.Close(fd)
	var b [256]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b[:n]))
}
