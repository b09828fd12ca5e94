package shm

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/internal/failpoint"
)

// Strategy is how a side waits.
type Strategy uint8

const (
	// Hybrid spins as long as that has lately paid, then parks.
	Hybrid Strategy = iota
	// Spin never parks; it lets other goroutines run now and then.
	Spin
	// Park parks at once.
	Park
)

// String names the strategy.
func (s Strategy) String() string {
	switch s {
	case Hybrid:
		return "hybrid"
	case Spin:
		return "spin"
	case Park:
		return "park"
	}
	return "unknown"
}

// Mode is a set of ways to sleep, as a sleeping side tells the other.
type Mode = uint32

// The ways to sleep.
const (
	Awake    Mode = 0
	Futex    Mode = 1 // on a word in the segment
	Doorbell Mode = 2 // on a bell
)

// Sleeper is the words of a ring as the side that waits sees them.
type Sleeper interface {
	// Ready tells whether there is something to do. It is asked again and again,
	// and must see whatever makes Interrupt being called.
	Ready() bool
	// Arm publishes that the side is about to sleep, and how.
	Arm(Mode)
	// Disarm publishes that it does not.
	Disarm()
}

// Parker puts one side of a ring to sleep until the other wakes it.
//
// The protocol, with the other side's half in brackets: arm; barrier; look once
// more; sleep. [Publish; look whether the other is armed; wake it.] The barrier
// orders the arming before the look for the sleeping side and the publication
// before the look for the awake one, which therefore needs no fence. A wake-up
// is remembered by the word or the bell, so one that comes between the look and
// the sleep ends the sleep at once.
//
// It sleeps in one of two ways. A thread that blocks in futex(2) is woken twice
// as fast as a goroutine in the netpoller, but it is a thread: only as many do
// so at once as there are processors to spare, and only for as long as the last
// sleep was short. Everybody else, and whoever sleeps longer than hotSleep,
// waits in the netpoller.
//
// One goroutine at a time waits; any may call Interrupt.
type Parker struct {
	mu     sync.Mutex // Interrupt against Close
	closed bool

	strategy Strategy
	word     *uint32
	bell     Bell
	bounded  bool // no membarrier: sleeps are cut short instead

	polls  int  // how long to spin: adapted
	cold   bool // the last sleep was long
	prompt int  // waits in a row that were over at once
	mode   atomic.Uint32

	done <-chan struct{} // of the context that interrupt is registered with
	stop func() bool
	wake func()
}

const (
	minPolls = 16
	maxPolls = 4096
	// yields is after how many looks one that only spins lets other goroutines run,
	// which may wake a thread that then wants this processor.
	yields = 16 << 10
	// maxPrompt is after how many waits that were over at once the context is looked
	// at in each.
	maxPrompt = 64
	// hotSleep is how long a thread may be kept for one sleep.
	hotSleep = 2 * time.Millisecond
	// boundedSleep is how long a side may sleep that might miss a wake-up.
	boundedSleep = time.Millisecond
)

// inFutex counts the threads of this process that sleep in futex(2).
var inFutex atomic.Int32

// NewParker makes a parker over the wake word of its side, which may be nil, and
// its bell.
func NewParker(s Strategy, word *uint32, bell Bell) *Parker {
	p := &Parker{strategy: s, word: word, bell: bell, bounded: !Register(), polls: maxPolls / 8}
	if !haveFutex {
		p.word = nil
	}
	p.wake = p.Interrupt
	return p
}

// Wait waits until s is ready, and answers nil, or until ctx ends, and answers
// its cause; or ErrClosed when the bell was closed. Both ready and ended, it may
// answer either. It allocates nothing when
// the context is that of the last wait.
func (p *Parker) Wait(ctx context.Context, s Sleeper) error {
	if s.Ready() {
		// Who comes back at once each time, because what is ready is always gone again,
		// must be let go in the end too.
		if p.prompt++; p.prompt > maxPrompt && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	p.prompt = 0
	if p.strategy == Spin {
		return spin(ctx, s)
	}
	if p.strategy == Hybrid && p.spin(s) {
		return nil
	}
	if err := p.watch(ctx); err != nil {
		return err
	}
	for {
		if err := p.sleep(ctx, s); err != nil {
			return err
		}
		if s.Ready() {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// spin is the strategy Spin.
func spin(ctx context.Context, s Sleeper) error {
	for i := 1; ; i++ {
		if s.Ready() {
			return nil
		}
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i%yields == 0 {
			runtime.Gosched()
		}
	}
}

// spin polls for as long as it has lately paid. With one processor nobody else
// could make it pay, so the others are let run instead.
func (p *Parker) spin(s Sleeper) bool {
	if runtime.GOMAXPROCS(0) > 1 {
		for i := range p.polls {
			if s.Ready() {
				p.polls = min(p.polls+i/4+1, maxPolls)
				return true
			}
			if i%256 == 255 {
				runtime.Gosched()
			}
		}
	}
	for range 4 {
		runtime.Gosched()
		if s.Ready() {
			return true
		}
	}
	p.polls = max(p.polls/2, minPolls)
	return false
}

// watch has the context's end interrupt the wait. The registration is kept for
// the next wait with the same context.
func (p *Parker) watch(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ctx.Done() == p.done {
		return nil
	}
	p.forget()
	if p.done = ctx.Done(); p.done != nil {
		p.stop = context.AfterFunc(ctx, p.wake)
	}
	return nil
}

// Close makes Interrupt do nothing any more and lets go of the last context: the
// wake word may be unmapped when it returns. Nobody may be waiting.
func (p *Parker) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.forget()
	}
}

// forget lets go of the context of the last wait.
func (p *Parker) forget() {
	if p.stop != nil {
		p.stop()
	}
	p.stop, p.done = nil, nil
}

// sleep arms, looks again and sleeps once.
func (p *Parker) sleep(ctx context.Context, s Sleeper) (err error) {
	mode := Doorbell
	if p.word != nil && !p.cold {
		if inFutex.Add(1) <= int32(max(runtime.GOMAXPROCS(0)-1, 1)) {
			mode = Futex
		} else {
			inFutex.Add(-1)
		}
	}
	var v uint32
	if mode == Futex {
		v = atomic.LoadUint32(p.word)
	}
	p.mode.Store(mode)
	s.Arm(mode)
	failpoint.Hit("park/armed")
	Barrier()
	if !s.Ready() && ctx.Err() == nil {
		failpoint.Hit("park/looked")
		start := time.Now()
		if mode == Futex {
			futexWait(p.word, v, p.most(hotSleep))
		} else {
			err = p.bell.Wait(p.most(0))
		}
		p.cold = time.Since(start) >= hotSleep
	}
	s.Disarm()
	p.mode.Store(Awake)
	if mode == Futex {
		inFutex.Add(-1)
	}
	return err
}

func (p *Parker) most(d time.Duration) time.Duration {
	if p.bounded {
		return boundedSleep
	}
	return d
}

// Interrupt makes a waiting goroutine of this process ask s.Ready again. What it
// is to see must be stored before.
func (p *Parker) Interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	switch p.mode.Load() {
	case Futex:
		futexWake(p.word)
	case Doorbell:
		p.bell.Ring()
	}
}

// Waker wakes the other side.
type Waker struct {
	word *uint32
	bell Bell
}

// NewWaker makes a waker over the other side's wake word and bell; either may
// be nil. Any goroutine may use it.
func NewWaker(word *uint32, bell Bell) *Waker { return &Waker{word, bell} }

// Wake wakes a side that sleeps in the ways that mode holds.
func (w *Waker) Wake(mode Mode) {
	if mode&Futex != 0 && w.word != nil && haveFutex {
		futexWake(w.word)
	}
	if mode&Doorbell != 0 && w.bell != nil {
		w.bell.Ring()
	}
}
