package shm

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Bell is a wake-up that remembers: a ring before the wait ends the wait at
// once, and any number of rings are one.
//
// One goroutine at a time waits; any goroutine, and any process that has it, may ring.
type Bell interface {
	// Ring wakes whoever waits, or the next to wait.
	Ring()
	// Wait waits for a ring, at most d; 0 is for ever. It answers nil after a
	// ring and when the time is over, which it does not tell apart: whoever
	// waits looks again. ErrClosed after Close.
	Wait(d time.Duration) error
	// FD is the descriptor, -1 when there is none.
	FD() int
	// Pass makes a descriptor of the bell for a peer, which is the caller's. No peer
	// may have FD itself: it could have calls of this side block.
	Pass() (int, error)
	// Close ends waits. A second call does nothing.
	Close() error
}

// localBell is a bell within one process.
type localBell struct {
	c      chan struct{}
	done   chan struct{}
	closed atomic.Bool
	set    atomic.Pointer[Set]
	timer  *time.Timer
}

// NewLocalBell makes a bell for one process, on any system.
func NewLocalBell() Bell {
	return &localBell{c: make(chan struct{}, 1), done: make(chan struct{})}
}

func (b *localBell) FD() int { return -1 }

func (b *localBell) Pass() (int, error) {
	return -1, fmt.Errorf("%w: a bell of one process is not passed", ErrUnsupported)
}

func (b *localBell) Ring() {
	select {
	case b.c <- struct{}{}:
	default:
	}
	if s := b.set.Load(); s != nil {
		s.Ring()
	}
}

func (b *localBell) Wait(d time.Duration) error {
	if d == 0 {
		select {
		case <-b.c:
			return nil
		case <-b.done:
			return b.gone()
		}
	}
	if b.timer == nil {
		b.timer = time.NewTimer(d)
	} else {
		b.timer.Reset(d)
	}
	defer b.timer.Stop()
	select {
	case <-b.c:
	case <-b.timer.C:
	case <-b.done:
		return b.gone()
	}
	return nil
}

func (b *localBell) gone() error { return fmt.Errorf("%w: bell", ErrClosed) }

func (b *localBell) Close() error {
	if !b.closed.Swap(true) {
		close(b.done)
	}
	return nil
}
