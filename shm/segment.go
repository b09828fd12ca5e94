package shm

import (
	"fmt"
	"os"
	"unsafe"
)

// Segment is memory for one ring.
type Segment interface {
	// Bytes is the whole mapping, zeroed when new and aligned to a page. It is
	// valid until Close.
	Bytes() []byte
	// FD is the descriptor to pass to the peer, which stays the segment's own;
	// -1 when there is none.
	FD() int
	// Kind is "memfd", "heap" or "file".
	Kind() string
	// Close unmaps the memory. A second call does nothing.
	Close() error
}

// maxSize keeps a size from overflowing what mmap and slices take.
const maxSize = 1 << 42

func checkSize(size int) error {
	page := os.Getpagesize()
	switch {
	case size <= 0 || size > maxSize:
		return fmt.Errorf("%w: %d bytes: use 1 to %d", ErrSize, size, maxSize)
	case size%page != 0:
		return fmt.Errorf("%w: %d bytes: use a multiple of the page, %d", ErrSize, size, page)
	}
	return nil
}

// heap is a segment that only this process can reach.
type heap struct{ mem []byte }

// largeHeap is from which size on NewHeap asks the system first.
const largeHeap = 1 << 20

// NewHeap makes a segment on the Go heap, where the race detector sees it.
func NewHeap(size int) (Segment, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	// The Go heap has no error for memory that it does not get: it ends the
	// process.
	if size >= largeHeap {
		if err := canMap(size); err != nil {
			return nil, err
		}
	}
	page := os.Getpagesize()
	mem := make([]byte, size+page)
	off := -int(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) & (page - 1)
	return &heap{mem[off : off+size : off+size]}, nil
}

func (h *heap) Bytes() []byte { return h.mem }
func (h *heap) FD() int       { return -1 }
func (h *heap) Kind() string  { return "heap" }

// Close leaves the memory to the collector: a late look does no harm.
func (h *heap) Close() error { return nil }
