package stream

import "sync/atomic"

// guard keeps memory from being released under a slow call. The owner of an end
// enters it around everything that touches the ring outside the fast path
// (whose own mark is the ring's cursor); whoever closes it learns when the last
// call has left.
type guard struct {
	n atomic.Int64 // calls under way, and closedBit
}

const closedBit = 1 << 62

// enter tells whether the call may go on. Exit must follow in either case.
func (g *guard) enter() bool { return g.n.Add(1)&closedBit == 0 }

// exit tells whether the guard is closed and this was the last call.
func (g *guard) exit() bool { return g.n.Add(-1) == closedBit }

// close keeps further calls out and tells whether none is under way.
func (g *guard) close() bool {
	for {
		old := g.n.Load()
		if g.n.CompareAndSwap(old, old|closedBit) {
			return old&^closedBit == 0
		}
	}
}

// idle tells whether the guard is closed and no call is under way.
func (g *guard) idle() bool { return g.n.Load() == closedBit }
