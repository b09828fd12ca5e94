//go:build !linux || !amd64 || race || novasafe

package order

import "sync/atomic"

// Plain tells that Publish is a plain store in this build.
const Plain = false

// Publish stores v to *p with release semantics.
func Publish[P interface{ *uint64 }](p P, v uint64) { atomic.StoreUint64(p, v) }
