package soft

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream/rdma"
)

// faults is what a test has set on a device.
type faults struct {
	active  atomic.Bool // loss or delay below
	stalled atomic.Bool

	mu    sync.Mutex
	loss  float64
	delay time.Duration
	cut   bool
	mend  *time.Timer // nil: it stays cut
}

// fate is what becomes of one transmission.
type fate uint8

const (
	intact fate = iota
	lostRequest
	lostReply
)

// draw decides on the transmission of the request at pos: the same for the same
// seed, queue pair and course of things. The lock is held.
func (q *qp) draw(pos uint64) (time.Duration, fate) {
	f := &q.dev.faults
	f.mu.Lock()
	loss, delay := f.loss, f.delay
	f.mu.Unlock()
	if delay > 0 && q.delayed != pos+1 {
		q.delayed = pos + 1
		return time.Duration(q.rng.Int64N(int64(delay))) + 1, intact
	}
	switch x := q.rng.Float64(); {
	case x < loss/2:
		return 0, lostRequest
	case x < loss:
		return 0, lostReply
	}
	return 0, intact
}

// Lose makes each transmission of the device's queue pairs fail with the given
// probability: as often the request is lost as its answer is. It is sent again
// after the timeout, or when the peer misses it.
func (d *Device) Lose(probability float64) { d.disturb(func(f *faults) { f.loss = probability }) }

// Delay makes each request wait for up to max before it is transmitted, each queue
// pair on its own: so those of different queue pairs overtake each other, and those
// of one never.
func (d *Device) Delay(max time.Duration) { d.disturb(func(f *faults) { f.delay = max }) }

func (d *Device) disturb(set func(*faults)) {
	f := &d.faults
	f.mu.Lock()
	set(f)
	f.active.Store(f.loss > 0 || f.delay > 0)
	f.mu.Unlock()
	d.rouse()
}

// Stall makes the device transmit nothing, until it is called with false: so send
// queues fill, and nothing fails.
func (d *Device) Stall(on bool) {
	d.faults.stalled.Store(on)
	d.rouse()
}

// Cut cuts the device's link, both ways, for a time or, with 0, until Mend. The
// port stays up.
func (d *Device) Cut(span time.Duration) {
	f := &d.faults
	f.mu.Lock()
	f.cut = true
	if f.mend != nil {
		f.mend.Stop()
		f.mend = nil
	}
	if span > 0 {
		f.mend = time.AfterFunc(span, d.Mend)
	}
	f.mu.Unlock()
	d.disconnect()
}

// Mend ends a Cut.
func (d *Device) Mend() {
	d.faults.heal()
	d.rouse()
}

func (f *faults) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = false
	if f.mend != nil {
		f.mend.Stop()
		f.mend = nil
	}
}

// PortDown takes the port down: as Cut, and the device tells of it.
func (d *Device) PortDown() { d.port(rdma.PortDown, rdma.EventPortDown) }

// PortUp takes the port up again.
func (d *Device) PortUp() { d.port(rdma.PortActive, rdma.EventPortUp) }

func (d *Device) port(s rdma.PortState, e rdma.EventKind) {
	d.mu.Lock()
	d.info.Port = s
	d.mu.Unlock()
	d.raise(rdma.Event{Kind: e})
	if s == rdma.PortDown {
		d.disconnect()
	}
	d.rouse()
}

// Revoke takes a region's key back under its owner: whoever uses it finds it
// stale.
func (d *Device) Revoke(r rdma.Region) {
	if r, ok := r.(*region); ok {
		d.revoke(r)
	}
}

// Remove takes the device away: its queue pairs fail, and all else but Close is
// ErrDeviceGone.
func (d *Device) Remove() {
	d.mu.Lock()
	d.gone = true
	d.info.Port = rdma.PortDown
	d.mu.Unlock()
	d.raise(rdma.Event{Kind: rdma.EventDeviceGone})
	for _, q := range d.all() {
		q.mu.Lock()
		q.fail(rdma.Flushed)
		q.mu.Unlock()
	}
}

// reachable tells whether anything comes into or out of the device.
func (d *Device) reachable() bool {
	d.faults.mu.Lock()
	cut := d.faults.cut
	d.faults.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	return !cut && !d.gone && !d.closed && d.info.Port == rdma.PortActive
}

// disconnect ends the connections of the device's queue pairs.
func (d *Device) disconnect() {
	for _, q := range d.all() {
		q.mu.Lock()
		if q.link != nil {
			q.down(q.link)
		}
		if q.serving != nil {
			q.serving.interrupt()
		}
		q.mu.Unlock()
	}
}

// rouse makes every queue pair look.
func (d *Device) rouse() {
	for _, q := range d.all() {
		q.rouse()
	}
}
