package control

import (
	"context"
	"time"
)

// deaths is who wants to hear of the death of a peer's process, which the end of
// its connection does not prove: a connection can be cut, or closed by mistake,
// while the process at its other end still writes to memory that it shares.
//
// The peer's lock guards it. The hold on the process is kept for as long as the
// connection stands, and behind that while anybody waits for the death.
type deaths struct {
	process *peerProcess
	told    bool
	last    uint64
	fns     map[uint64]func()
}

// OnDeath has fn called once when the peer's process has ended, at once if it has:
// none of its threads will write anything any more. That is proven by the kernel, by
// a pidfd. Where there is none to be had (another transport or system, a kernel
// before 5.3), the end of the connection counts as the death; so it does when
// nobody had asked by then. Fn must not block. Stop tells whether it has kept fn
// from being called; it is not called either when the node is closed.
func (p *Peer) OnDeath(fn func()) (stop func() bool) {
	p.mu.Lock()
	if d := &p.deaths; !d.told && (p.err == nil || d.process != nil) {
		d.last++
		id := d.last
		if d.fns == nil {
			d.fns = map[uint64]func(){}
		}
		d.fns[id] = fn
		p.mu.Unlock()
		return func() bool { return p.unheard(id) }
	}
	p.mu.Unlock()
	fn()
	return func() bool { return false }
}

// unheard takes one who wants to hear of the death off the list.
func (p *Peer) unheard(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.deaths.fns[id]
	delete(p.deaths.fns, id)
	if p.err != nil {
		p.deaths.letGo()
	}
	return ok
}

// letGo gives the hold up when nobody wants to hear of the death. The connection
// has ended, and the lock is held.
func (d *deaths) letGo() {
	if d.process != nil && len(d.fns) == 0 {
		d.process.close() // whoever waits ends
		d.process = nil
	}
}

// deathbed is how long the goroutine that has met the end of a connection waits for
// the death of the process: the kernel closes a dying process's sockets right before.
const deathbed = 2 * time.Millisecond

// mourn tells of the death behind the end of the connection, or waits for it. Within
// is how long it may block.
func (p *Peer) mourn(within time.Duration) {
	p.mu.Lock()
	d := &p.deaths
	d.letGo()
	process := d.process
	p.mu.Unlock()
	if process == nil || process.ended(within) {
		p.died()
		return
	}
	if !p.node.background(func() {
		stop := context.AfterFunc(p.node.ctx, process.close)
		defer stop()
		if process.wait() {
			p.died()
		}
	}) {
		process.close()
	}
}

// died tells everybody, once.
func (p *Peer) died() {
	p.mu.Lock()
	d := &p.deaths
	d.told = true
	fns := d.fns
	d.fns = nil
	d.letGo()
	p.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}
