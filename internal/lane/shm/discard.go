package shm

import (
	"runtime"
	"sync"
)

// discards closes kits that serve no session any more, one after another, in a
// goroutine that there is only meanwhile. To unmap and close one takes tens of
// microseconds, and a death can end a thousand sessions at once: the others are told
// first. Its methods may be called concurrently.
type discards struct {
	mu    sync.Mutex
	kits  []*kit
	bytes int
	busy  bool
	idle  *sync.Cond // made with the first goroutine
}

// discardBytes bounds the memory that waits to be given back; who has more waits.
const discardBytes = 256 << 20

// add takes a kit that nobody uses any more.
func (d *discards) add(k *kit) {
	size := len(k.seg.Bytes())
	d.mu.Lock()
	if d.bytes+size > discardBytes {
		d.mu.Unlock()
		k.close()
		return
	}
	d.kits = append(d.kits, k)
	d.bytes += size
	if d.idle == nil {
		d.idle = sync.NewCond(&d.mu)
	}
	if !d.busy {
		d.busy = true
		go d.run()
	}
	d.mu.Unlock()
}

func (d *discards) run() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.kits) > 0 {
		k := d.kits[0]
		d.kits = d.kits[1:]
		size := len(k.seg.Bytes())
		d.mu.Unlock()
		k.close()
		runtime.Gosched() // whoever is being told goes first
		d.mu.Lock()
		d.bytes -= size
	}
	d.kits = nil
	d.busy = false
	d.idle.Broadcast()
}

// settle waits until all that was added is closed, and tells whether there was any.
func (d *discards) settle() (any bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	any = d.busy
	for d.busy {
		d.idle.Wait()
	}
	return any
}
