package shm

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewHuge makes a segment as NewMemfd does, and asks for huge pages. How much of
// it is mapped by them is what HugeBytes tells: the system may give none.
func NewHuge(size int) (Segment, error) { return newMemfd(size, fillHuge) }

// fillHuge allocates through the mapping, whose advice decides on the pages:
// fallocate knows of no mapping. It comes last all the same, for the kernels
// (before 5.14) that cannot fill a mapping without touching it.
func fillHuge(fd, size int) (*mapping, error) {
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, explain("size", size, err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, explain("map", size, err)
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
	if err = unix.Fallocate(fd, 0, 0, int64(size)); err != nil {
		err = explain("allocate", size, err)
	} else if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		err = explain("seal", size, err)
	}
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return &mapping{mem: mem, fd: fd, kind: "memfd"}, nil
}

// HugeBytes is how much of a segment this process has mapped by huge pages. It
// reads /proc/self/smaps, which takes a while: ask once.
func HugeBytes(s Segment) (int64, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("shm: huge pages: %w", err)
	}
	defer f.Close()
	from := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.Bytes()))))
	to := from + uint64(len(s.Bytes()))
	var sum int64
	inside := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if lo, hi, ok := mapped(line); ok {
			inside = lo >= from && hi <= to
			continue
		}
		if rest, ok := strings.CutPrefix(line, "ShmemPmdMapped:"); inside && ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			sum += kb << 10
		}
	}
	return sum, nil
}

// mapped reads the addresses of a line that begins a mapping.
func mapped(line string) (lo, hi uint64, ok bool) {
	addresses, _, _ := strings.Cut(line, " ")
	a, b, ok := strings.Cut(addresses, "-")
	if !ok {
		return 0, 0, false
	}
	lo, err1 := strconv.ParseUint(a, 16, 64)
	hi, err2 := strconv.ParseUint(b, 16, 64)
	return lo, hi, err1 == nil && err2 == nil
}

// HugeRemedy says why a segment of size bytes may have no huge pages, and what
// to do.
func HugeRemedy(size int) string {
	const pmd = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
	switch setting := selected("/sys/kernel/mm/transparent_hugepage/shmem_enabled"); {
	case int64(size) < number(pmd):
		return fmt.Sprintf("a huge page has %d bytes, the ring's segment %d: raise Capacity", number(pmd), size)
	case setting == "never" || setting == "deny":
		return "the system gives none to shared memory: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
	case setting == "unknown":
		return "this kernel has no transparent huge pages"
	}
	return "no free memory in pieces so large: free some, or echo 1 > /proc/sys/vm/compact_memory"
}
