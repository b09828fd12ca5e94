//go:build verbs && cgo && linux

package verbs

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// region is mapped memory, registered. Nothing of it changes until Close.
type region struct {
	dom  *domain
	mem  []byte // as long as was asked for, of the whole pages that are mapped
	mr   ibv.MR
	l, r uint32
}

func (m *domain) NewRegion(size int, access rdma.Access) (rdma.Region, error) {
	limit := int(min(m.dev.port.attr.MaxMR, math.MaxInt))
	switch {
	case access&^(rdma.RemoteWrite|rdma.RemoteRead) != 0:
		return nil, fmt.Errorf("%w: a region with access %#x", rdma.ErrOption, access)
	case size <= 0 || size > limit:
		return nil, fmt.Errorf("%w: a region of %s has 1 to %d bytes, not %d", rdma.ErrLimit, m.dev.port.name, limit, size)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("%w: %d bytes of memory: %w", rdma.ErrLimit, size, err)
	}
	mr, err := m.pd.Register(mem, access&rdma.RemoteWrite != 0, access&rdma.RemoteRead != 0)
	if err != nil {
		return nil, errors.Join(refused(fmt.Sprintf("a region of %d bytes", size), err), unix.Munmap(mem))
	}
	r := &region{dom: m, mem: mem, mr: mr}
	r.l, r.r = mr.Keys()
	m.regions[r] = true
	return r, nil
}

func (r *region) Bytes() []byte { return r.mem }
func (r *region) Addr() uint64  { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.mem)))) }
func (r *region) LKey() uint32  { return r.l }
func (r *region) RKey() uint32  { return r.r }

// Close keeps the memory when the device will not let go of it.
func (r *region) Close() error {
	if !closing(r.dom, r.dom.regions, r) {
		return nil
	}
	if err := r.mr.Close(); err != nil {
		return fmt.Errorf("verbs: deregister %d bytes: %w", len(r.mem), err)
	}
	return unix.Munmap(r.mem)
}

// refused is the error of something that the device or the kernel would not make.
// They tell no more than an errno, so the limits are told here.
func refused(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EPERM),
		errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
	default:
		return fmt.Errorf("verbs: %s: %w", what, err)
	}
	memlock := "unknown"
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) == nil {
		memlock = fmt.Sprintf("%d bytes", l.Cur)
		if l.Cur == unix.RLIM_INFINITY {
			memlock = "unlimited"
		}
	}
	return fmt.Errorf("%w: %s: %w: memlock, which counts all that this process has registered, is %s: raise it by ulimit -l, LimitMEMLOCK of systemd, or the capability IPC_LOCK", rdma.ErrLimit, what, err, memlock)
}
