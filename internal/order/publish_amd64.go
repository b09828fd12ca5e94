//go:build amd64 && !race && !novasafe

package order

// Plain tells that Publish is a plain store in this build.
const Plain = true

// Publish stores v to *p with release semantics: one MOV.
func Publish(p *uint64, v uint64) { *p = v }
