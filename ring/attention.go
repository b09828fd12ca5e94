package ring

import (
	"sync/atomic"

	"github.com/novastream/novastream/internal/order"
)

// Attention is the word by which a side says how it wants to be woken. Each
// side writes its own word and reads the other's after each thing it
// publishes: one load of a line that stays shared until the word changes.
//
//	 63                                        8 7    4  3   2  1    0
//	+-------------------------------------------+------+---+---+------+
//	|                 sequence                  |  0   | X | C | mode |
//	+-------------------------------------------+------+---+---+------+
//
// Mode is how the side sleeps (bit 0: on its wake word, bit 1: on a doorbell,
// none: it does not), C that it has closed the ring
// and will do nothing more with it, X that it did so to cancel the session. The sequence grows with each change, so
// that an arm after a disarm is seen as a change.
//
// Every change is a read-modify-write (Arm, Disarm and Close may race with
// each other on one side); readers only load. The store of Arm and the loads
// that follow it in the sleeping side are ordered by a barrier that the
// sleeping side pays for: Arm, barrier, look again, sleep (SYNC: sleep).
type Attention uint64

const (
	attnMode     = 3
	attnClosed   = 1 << 2
	attnCancel   = 1 << 3
	attnSeqShift = 8
)

// Mode is how the side that wrote the word sleeps, a set of bits: 1 on its wake
// word, 2 on its doorbell, 0 when it is awake.
func (a Attention) Mode() uint32 { return uint32(a & attnMode) }

// Closed tells that the side that wrote the word has closed the ring.
func (a Attention) Closed() bool { return a&attnClosed != 0 }

// Cancelled tells that the side that wrote the word has cancelled the session.
func (a Attention) Cancelled() bool { return a&attnCancel != 0 }

func setAttention(p *uint64, clear, set uint64) {
	for {
		old := atomic.LoadUint64(p)
		v := ((old>>attnSeqShift+1)<<attnSeqShift | old&(1<<attnSeqShift-1)) &^ clear
		if atomic.CompareAndSwapUint64(p, old, v|set) {
			return
		}
	}
}

// nudge wakes the other side if it sleeps, from any goroutine.
func nudge(p *uint64, notify func(Attention)) {
	if a := Attention(order.Load(p)); notify != nil && a.Mode() != 0 {
		notify(a)
	}
}

func arm(p *uint64, mode uint32) { setAttention(p, attnMode, uint64(mode)&attnMode) }
func disarm(p *uint64)           { setAttention(p, attnMode, 0) }

// resetAttention begins a session: awake, open, one step on.
func resetAttention(p *uint64) { setAttention(p, attnMode|attnClosed|attnCancel, 0) }
