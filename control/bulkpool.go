package control

import (
	"math/bits"
	"sync"
)

// bulkPool is where the buffers of bulk frames come from: gRPC's own pool clears
// each buffer that it gives, and of those over 32 KiB all of a megabyte, which
// cost more than the copy of a frame. Who takes one here writes all of it, so
// nothing of an earlier frame can be read.
//
// It has a pool for each power of two, and is a mem.BufferPool.
type bulkPool struct {
	pools [maxBulkBits + 1]sync.Pool
}

// Larger buffers than of 1<<maxBulkBits bytes are not kept.
const maxBulkBits = 23

var bulkBuffers bulkPool

// Get lends a buffer of n bytes, whatever they are.
func (p *bulkPool) Get(n int) *[]byte {
	k := bits.Len(uint(max(n, 1) - 1))
	if k > maxBulkBits {
		b := make([]byte, n)
		return &b
	}
	b, ok := p.pools[k].Get().(*[]byte)
	if !ok {
		b = new(make([]byte, 1<<k))
	}
	*b = (*b)[:n]
	return b
}

// Put takes it back.
func (p *bulkPool) Put(b *[]byte) {
	if c := cap(*b); c > 0 && c&(c-1) == 0 && c <= 1<<maxBulkBits {
		p.pools[bits.Len(uint(c))-1].Put(b)
	}
}
