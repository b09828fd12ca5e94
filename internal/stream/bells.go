package stream

import (
	"fmt"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/shm"
)

// bells is what an anchor's consumer waits on while it has no ring, or several:
// a channel for an exclusive stream, a set of the rings' bells for a shared one.
type bells struct {
	own shm.Bell
	set *shm.Set
}

func (a *Anchor) openBells() error {
	b := &bells{own: shm.NewLocalBell()}
	if a.opt.Shared {
		set, err := shm.NewSet()
		if err != nil {
			return fmt.Errorf("create a shared stream: %w", limit(err))
		}
		b.set, b.own = set, set
	}
	a.set = b
	a.own = shm.NewParker(a.opt.Wait, nil, b.own)
	return nil
}

// addBell lets the consumer of a shared stream hear a new ring. Without it the
// ring could not wake anybody, so a failure ends the session.
func (a *Anchor) addBell(in *Inbound) {
	if a.set.set == nil || in.end == nil {
		return
	}
	if err := a.set.set.Add(in.end.Bell); err != nil {
		in.leave(TransportError, fmt.Errorf("%w: %w", fault.ErrTransport, limit(err)))
	}
}

func (a *Anchor) dropBell(in *Inbound) {
	if a.set.set != nil && in.end != nil {
		a.set.set.Remove(in.end.Bell)
	}
}

func (a *Anchor) closeBells() {
	a.own.Close()
	a.set.own.Close()
}
