package stream

import (
	"github.com/novastream/novastream/ring"
)

// Return gives back what the fast path has lent of c.
func (a *Anchor) Return(c *ring.Consumer) {
	a.lender = c
	a.Release()
}

// More takes the next frame of the ring whose frames are lent, while that is a
// Data frame of the same sender and there is nothing else to tell. The frames that
// are lent keep the ring's memory.
func (a *Anchor) More() ([]byte, bool) {
	in := a.lending
	if a.lender == nil || in.c != a.lender || a.done || a.signal.Load() {
		return nil, false
	}
	data, ok := in.c.NextData()
	if ok {
		in.seq++
	}
	return data, ok
}

// Seq is the number of the sender's next frame. The consumer calls it.
func (in *Inbound) Seq() uint64 { return in.seq }
