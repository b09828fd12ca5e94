package stream

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
)

// Inbound is one session as its receiver has it.
//
// The anchor's consumer goroutine owns c and seq; everybody else may only mark
// the session as gone, cancel and seal c. A member of a shared ring has no ring
// of its own (end and c are nil): its record in the pool stands for it.
type Inbound struct {
	a      *Anchor
	sender uint32
	key    inKey
	peer   *control.Peer // nil: in this process
	lane   string

	end    *lane.End
	c      *ring.Consumer
	record int
	gen    uint32

	announced bool   // its Attached was delivered, or is about to be
	halted    bool   // its lane's Halt was called
	seq       uint64 // of the next frame
	started   time.Time

	attached atomic.Bool          // holds one of the anchor's places; set under the anchor's mu
	gone     atomic.Pointer[gone] // set once: no more will come, and why
	lost     atomic.Bool          // it is gone, and had not said that it ends
	told     atomic.Bool          // the consumer has come to its end
	stops    []func()

	mem      sync.Mutex // control's touching of the ring against its release
	released bool       // guarded by mem
}

// touch calls fn unless the ring's memory is released, and keeps it meanwhile.
// It is for control; the consumer's own calls keep the memory by themselves.
func (in *Inbound) touch(fn func()) bool {
	in.mem.Lock()
	defer in.mem.Unlock()
	if in.released {
		return false
	}
	fn()
	return true
}

// gone says how a session ended when its ring does not.
type gone struct {
	kind Kind
	err  error
}

// leave marks the session as over for a reason that its ring may not show, and
// wakes the consumer, which delivers what was committed first.
func (in *Inbound) leave(kind Kind, err error) {
	if in.gone.CompareAndSwap(nil, &gone{kind, err}) {
		in.lost.Store(in.attached.Load())
		in.detach()
		if in.record > 0 {
			in.a.pool.leave(in, false)
		}
		in.a.wake()
	}
}

// dead says that a member of a shared ring writes nothing any more: the claim that
// it holds is nobody's.
func (in *Inbound) dead() {
	if in.record > 0 {
		in.a.pool.leave(in, true)
		in.a.wake()
	}
}

// halt has nothing more arrive. The consumer calls it when the session is over
// for a reason that its ring does not show, and then reads on to the end.
func (in *Inbound) halt() {
	if !in.halted && in.end != nil && in.end.Halt != nil {
		in.halted = true
		in.end.Halt()
	}
}

// detach gives the anchor's place free. Whichever call does it, the place is free
// when one returns: the answer to stream_end tells the sender so.
func (in *Inbound) detach() {
	if in.attached.Load() {
		in.a.vacate(in)
	}
}

// watch begins to observe the sender's node: the end of its socket ends the session,
// and its silence is a timeout. Its death is something else, and only matters where
// others wait for what it holds. The lane's own failures come by Fail.
func (in *Inbound) watch() {
	if in.peer != nil {
		in.touch(in.observe) // a session that is released already needs none
	}
}

func (in *Inbound) observe() {
	stop := in.peer.OnClose(func(error) { in.leave(Dropped, fault.ErrPeerDead) })
	in.stops = append(in.stops, func() { stop() })
	if in.record > 0 {
		in.a.pool.watch(in)
	}
	if d := in.a.opt.MessageTimeout; d > 0 {
		in.stops = append(in.stops, in.peer.Watch(d, func(since time.Duration) {
			in.leave(Timeout, &TimeoutError{What: "sender silent", After: since})
			in.tell(&wire.Cancel{Outlet: in.key.outlet, Reason: "message timeout: nothing was heard of the sender for " + since.String()})
		}))
	}
}

// tell sends the sender a message about its session.
func (in *Inbound) tell(m *wire.Cancel) {
	if in.peer == nil {
		if o := in.a.reg.outlet(in.key.outlet); o != nil {
			o.told(m)
		}
		return
	}
	in.a.reg.notify(in.peer, "stream_cancel", m)
}

// close tells the sender that nothing will be read any more, and keeps the
// consumer out. The memory stays until release.
func (in *Inbound) close(m *wire.Cancel) {
	// Asked before: a lane that finds the ring closed may say that it has failed.
	knows := in.gone.Load() != nil
	live := in.touch(func() {
		switch {
		case in.c == nil:
			return
		case m.Reason != "" || !m.Gone:
			in.c.Cancel(m.Reason)
		default:
			in.c.Close()
		}
		in.c.Seal()
	})
	if live && !knows {
		in.tell(m)
	}
}

// release gives the memory back, once, unless frames are lent. The consumer
// must be sealed, and no slow call of its owner under way.
func (in *Inbound) release(clean bool) bool {
	if in.c != nil {
		for !in.c.Quiesced() {
			if in.c.Lent() {
				return false
			}
			runtime.Gosched() // inside a Get, which ends by itself
		}
	}
	first := in.touch(func() {
		in.released = true
		if in.end != nil {
			in.end.Close(clean, in.c.Position())
			in.a.reg.memory.Add(-int64(in.end.Bytes))
			in.a.reg.huge.Add(-int64(in.end.HugeBytes))
		}
	})
	if !first {
		return true
	}
	for _, stop := range in.stops {
		stop()
	}
	in.detach()
	in.a.reg.forget(in)
	return true
}
