//go:build linux && amd64 && !race && !novasafe

package order

// Plain tells that Publish is a plain store in this build.
const Plain = true

// Publish stores v to *p with release semantics: one MOV.
func Publish[P interface{ *uint64 }](p P, v uint64) { *p = v }
