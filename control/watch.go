package control

import (
	"context"
	"sync"
	"time"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// watcher notices a peer that is silent although its connection stands: stopped,
// or cut off. While anybody watches, the peer is pinged at half of the shortest
// time; its reader answers, behind no data. One timer serves all who watch.
type watcher struct {
	mu      sync.Mutex
	next    uint64
	watches map[uint64]*watch
	timer   *time.Timer
	every   time.Duration
	due     time.Duration // when the timer is to fire, since the node's start
	ended   bool
}

type watch struct {
	d      time.Duration
	silent func(time.Duration)
}

func (p *Peer) heard() { p.last.Store(int64(time.Since(p.node.started))) }

// Watch calls silent once when nothing at all was heard of the peer for d. It
// must not block. Stop ends the watch.
func (p *Peer) Watch(d time.Duration, silent func(since time.Duration)) (stop func()) {
	w := &p.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || d <= 0 {
		return func() {}
	}
	if w.watches == nil {
		w.watches = map[uint64]*watch{}
	}
	w.next++
	id := w.next
	w.watches[id] = &watch{d, silent}
	if len(w.watches) == 1 {
		p.heard() // nobody has asked before
	}
	w.plan(p)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watches, id)
		w.plan(p)
	}
}

// plan sets the timer for the shortest watch. The lock is held.
func (w *watcher) plan(p *Peer) {
	every := time.Duration(0)
	for _, x := range w.watches {
		if every == 0 || x.d/2 < every {
			every = max(x.d/2, time.Millisecond)
		}
	}
	if every == w.every {
		return
	}
	w.every = every
	w.due = time.Since(p.node.started) + every
	switch {
	case every == 0:
		w.timer.Stop()
	case w.timer == nil:
		w.timer = time.AfterFunc(every, func() { w.tick(p) })
	default:
		w.timer.Reset(every)
	}
}

// tick tells those that have waited for long enough. Time during which this process
// did not run does not count: it has heard nobody then, and has asked nobody.
func (w *watcher) tick(p *Peer) {
	now, last := time.Since(p.node.started), p.last.Load()
	var told []*watch
	w.mu.Lock()
	if late := now - w.due; late > w.every/2 && p.last.CompareAndSwap(last, last+int64(late)) {
		last += int64(late)
	}
	silence := now - time.Duration(last)
	for id, x := range w.watches {
		if silence >= x.d {
			told = append(told, x)
			delete(w.watches, id)
		}
	}
	every := w.every
	if len(w.watches) == 0 {
		every, w.every = 0, 0
	}
	if every > 0 && !w.ended {
		w.due = now + every
		w.timer.Reset(every)
	}
	w.mu.Unlock()
	for _, x := range told {
		x.silent(silence)
	}
	if every > 0 {
		ctx, cancel := context.WithTimeout(p.ctx, every)
		defer cancel()
		_ = p.send(ctx, &controlpb.Envelope{Type: controlpb.Envelope_PING}, nil)
	}
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.watches = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

// pong answers a ping. It is called by the reader, and gives up rather than
// hold it up.
func (p *Peer) pong() {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	_ = p.send(ctx, &controlpb.Envelope{Type: controlpb.Envelope_PONG}, nil)
}
