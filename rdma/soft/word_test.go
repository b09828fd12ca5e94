package soft_test

import (
	"sync/atomic"
	"unsafe"

	"github.com/novastream/novastream/rdma"
)

// load loads a word of a region as its owner does.
func load(r rdma.Region, off int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&r.Bytes()[off : off+8][0])))
}
