// Package probe instantiates the hot paths of package ring the way users do,
// for the test that reads their compiled code. Nothing else imports it.
package probe

import "github.com/novastream/novastream/ring"

// The records: one word, three, and seven, which fill slots of 16, 32 and 64
// bytes.
type (
	R8  struct{ A uint64 }
	R24 struct{ A, B, C uint64 }
	R56 struct{ A, B, C, D, E, F, G uint64 }
)

func Put8(p *ring.Producer, v *R8) error   { return ring.Put(p, v) }
func Put24(p *ring.Producer, v *R24) error { return ring.Put(p, v) }
func Put56(p *ring.Producer, v *R56) error { return ring.Put(p, v) }

func Get8(c *ring.Consumer, v *R8) (uint64, bool)   { return ring.Get(c, v) }
func Get24(c *ring.Consumer, v *R24) (uint64, bool) { return ring.Get(c, v) }
func Get56(c *ring.Consumer, v *R56) (uint64, bool) { return ring.Get(c, v) }

func Slots8(p *ring.Producer, n int, v R8) {
	for s := range ring.Slots[R8](p, n) {
		*s = v
	}
}

func Slots24(p *ring.Producer, n int, v *R24) {
	for s := range ring.Slots[R24](p, n) {
		*s = *v
	}
}

func Slots56(p *ring.Producer, n int, v *R56) {
	for s := range ring.Slots[R56](p, n) {
		*s = *v
	}
}

func Each8(c *ring.Consumer, n int) (sum uint64) {
	for s := range ring.Each[R8](c, n) {
		sum += s.A
	}
	return sum
}

func Each24(c *ring.Consumer, n int) (sum uint64) {
	for s := range ring.Each[R24](c, n) {
		sum += s.A + s.B + s.C
	}
	return sum
}

func Each56(c *ring.Consumer, n int) (sum uint64) {
	for s := range ring.Each[R56](c, n) {
		sum += s.A + s.G
	}
	return sum
}
