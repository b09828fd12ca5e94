//go:build verbs && cgo && linux

package verbs

import "sync/atomic"

// places counts the places of a work queue that are taken: from a post until the
// completion of it or of a later one has been polled. Devices count otherwise, some
// more and some less strictly, and tell nothing.
//
// One goroutine posts: it owns posted and marked. One polls: it owns read, and
// publishes freed.
type places struct {
	size   uint64
	posted uint64 // requests, ever
	marked uint64 // of them those that complete
	read   uint64 // marks that have completed
	freed  atomic.Uint64
	marks  []atomic.Uint64 // what posted was behind each request that completes
}

func newPlaces(size int) places {
	return places{size: uint64(size), marks: make([]atomic.Uint64, size)}
}

// free is how many requests can be posted.
func (p *places) free() int { return int(p.size - (p.posted - p.freed.Load())) }

// mark notes, before the post, that the i-th request of a batch completes, as the
// k-th that does.
func (p *places) mark(i, k int) {
	p.marks[(p.marked+uint64(k))%p.size].Store(p.posted + uint64(i) + 1)
}

// took notes that n requests are posted, and k of them complete.
func (p *places) took(n, k int) {
	p.posted += uint64(n)
	p.marked += uint64(k)
}

// done notes that the next request that completes has been polled.
func (p *places) done() {
	p.freed.Store(p.marks[p.read%p.size].Load())
	p.read++
}
