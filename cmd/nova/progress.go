package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// progress draws how far a transfer is, on a terminal only.
type progress struct {
	on      bool
	total   int64
	n       int64
	started time.Time
	drawn   time.Time
}

func newProgress(asJSON bool) *progress {
	st, err := os.Stderr.Stat()
	return &progress{on: err == nil && !asJSON && st.Mode()&os.ModeCharDevice != 0, total: -1, started: time.Now()}
}

func (p *progress) expect(n string) {
	if v, err := strconv.ParseInt(n, 10, 64); err == nil && v > 0 {
		p.total = v
	}
}

func (p *progress) add(n int) {
	p.n += int64(n)
	if p.on && time.Since(p.drawn) > 100*time.Millisecond {
		p.draw()
	}
}

func (p *progress) draw() {
	p.drawn = time.Now()
	rate := float64(p.n) / time.Since(p.started).Seconds() / 1e6
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

func (p *progress) done() {
	if p.on && p.n > 0 {
		p.draw()
		fmt.Fprintln(os.Stderr)
	}
}
