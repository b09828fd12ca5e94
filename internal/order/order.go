// Package order holds the two memory-ordering choices that the rings make,
// so that they are made once and can be read, and checked, in one place.
//
// Publish is a release store: everything written before it is visible to
// whoever sees the stored value through Load. Load is an acquire load.
//
// On amd64 every plain store already has release semantics (the hardware
// keeps stores in order, and the compiler keeps them in program order because
// each store takes the memory state that the one before it produced), while
// sync/atomic's store is an XCHG: a full barrier that drains the store buffer
// and costs ten times the frame rate. So Publish is a plain MOV on Linux
// there. Elsewhere, under the race detector and with the build tag
// novasafe, it is an atomic store.
//
// The package orders a store after the stores before it and nothing else. A
// store followed by a load of another word may be reordered by the store
// buffer; the side that is about to sleep pays for that (see shm.Parker).
package order

import "sync/atomic"

// Load reads *p with acquire semantics.
//
// It is generic, as Publish is, for the compiler's sake: a generic function
// that is instantiated in a package far from this one has its calls of generic
// functions inlined there, and not its calls of plain ones.
func Load[P interface{ *uint64 }](p P) uint64 { return atomic.LoadUint64(p) }
