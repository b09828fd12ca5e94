package rdmaguest

import (
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// pulse measures for how long a machine stood still: its processors are threads of
// another machine, which has other things to do too, and whoever waits for an answer
// of it cannot tell that from a cable that is cut. Many short standstills are as bad as a
// long one, so it is how much of half a second they took together.
type pulse struct {
	mu   sync.Mutex
	last time.Time
	late []late // within the last half second
	most time.Duration
}

// late is a beat that came late, and by how much.
type late struct {
	at time.Time
	by time.Duration
}

const (
	pulseEvery = 10 * time.Millisecond
	pulseSpan  = 500 * time.Millisecond
)

// run beats before all other programs of the machine, which may be busy: that is no
// standstill.
func (p *pulse) run() {
	runtime.LockOSThread()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, -20) // of this thread
	p.take()
	for {
		sleep(pulseEvery)
		p.mu.Lock()
		p.beat()
		p.mu.Unlock()
	}
}

// beat takes note of a beat. A machine that is well is late by less than a beat.
func (p *pulse) beat() {
	now := time.Now()
	if by := now.Sub(p.last) - pulseEvery; by > pulseEvery {
		p.late = append(p.late, late{now, by})
	}
	p.last = now
	p.late = slices.DeleteFunc(p.late, func(l late) bool { return now.Sub(l.at) > pulseSpan })
	sum := time.Duration(0)
	for _, l := range p.late {
		sum += l.by
	}
	p.most = max(p.most, sum)
}

// take answers the longest standstill since the last call.
func (p *pulse) take() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.IsZero() {
		p.last = time.Now()
	}
	p.beat()
	most := p.most
	p.most, p.late = 0, nil
	return most
}
