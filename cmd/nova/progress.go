package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// progress draws how far a transfer is, on a terminal only. Its methods may be
// called concurrently.
type progress struct {
	on bool

	mu      sync.Mutex
	total   int64
	n       int64
	started time.Time
	drawn   time.Time
}

func newProgress(asJSON bool) *progress {
	return &progress{on: !asJSON && isTerminal(os.Stderr), total: -1}
}

func (p *progress) expect(n string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, err := strconv.ParseInt(n, 10, 64); err == nil && v > 0 {
		p.total = v
	}
}

func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		p.started = time.Now() // not when the waiting began
	}
	p.n += int64(n)
	if p.on && time.Since(p.drawn) > 100*time.Millisecond {
		p.draw()
	}
}

// draw draws one line. The lock is held.
func (p *progress) draw() {
	p.drawn = time.Now()
	rate := float64(p.n) / max(time.Since(p.started).Seconds(), 1e-6) / 1e6
	if p.total <= 0 {
		fmt.Fprintf(os.Stderr, "\r%8.1f MB  %6.0f MB/s ", float64(p.n)/1e6, rate)
		return
	}
	const width = 40
	full := int(min(p.n, p.total) * width / p.total)
	bar := make([]byte, width)
	for i := range bar {
		bar[i] = '.'
		if i < full {
			bar[i] = '#'
		}
	}
	fmt.Fprintf(os.Stderr, "\r[%s] %3d%%  %8.1f MB  %6.0f MB/s ", bar, min(p.n, p.total)*100/p.total, float64(p.n)/1e6, rate)
}

// done leaves the line as it is now; nothing is drawn any more.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on && p.n > 0 {
		p.draw()
		fmt.Fprintln(os.Stderr)
	}
	p.on = false
}
