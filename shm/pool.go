package shm

import (
	"sync"
)

// Pool prepares memfd segments ahead, of the sizes that were asked for before:
// making one takes from 76 µs to milliseconds, taking a prepared one nothing.
// It has a goroutine only while it prepares. Its methods may be called
// concurrently.
type Pool struct {
	perSize  int
	maxBytes int64

	mu     sync.Mutex
	ready  map[int][]Segment
	wanted []int // sizes to prepare, one entry a segment
	bytes  int64
	busy   bool
	making int // size that is being prepared now, 0 for none
	closed bool
	idle   sync.Cond
}

// NewPool makes a pool that keeps perSize segments of each size ready, and at
// most maxBytes in all.
func NewPool(perSize int, maxBytes int64) *Pool {
	p := &Pool{perSize: perSize, maxBytes: maxBytes, ready: map[int][]Segment{}}
	p.idle.L = &p.mu
	return p
}

// Get answers a segment that nobody has used, and whether it was prepared.
func (p *Pool) Get(size int) (seg Segment, prepared bool, err error) {
	p.mu.Lock()
	if have := p.ready[size]; len(have) > 0 {
		seg = have[len(have)-1]
		p.ready[size] = have[:len(have)-1]
		p.bytes -= int64(size)
	}
	p.refill(size)
	p.mu.Unlock()
	if seg != nil {
		return seg, true, nil
	}
	seg, err = NewMemfd(size)
	return seg, false, err
}

// refill asks for as many of a size as are missing. The lock is held.
func (p *Pool) refill(size int) {
	if p.closed {
		return
	}
	have := len(p.ready[size])
	if p.making == size {
		have++
	}
	for _, s := range p.wanted {
		if s == size {
			have++
		}
	}
	for ; have < p.perSize && p.bytes+int64(size) <= p.maxBytes; have++ {
		p.wanted = append(p.wanted, size)
		p.bytes += int64(size)
	}
	if len(p.wanted) > 0 && !p.busy {
		p.busy = true
		go p.prepare()
	}
}

func (p *Pool) prepare() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.wanted) > 0 && !p.closed {
		size := p.wanted[0]
		p.wanted, p.making = p.wanted[1:], size
		p.mu.Unlock()
		seg, err := NewMemfd(size)
		p.mu.Lock()
		p.making = 0
		switch {
		case err != nil: // whoever needs one will be told
			p.bytes -= int64(size)
		case p.closed:
			seg.Close()
		default:
			p.ready[size] = append(p.ready[size], seg)
		}
	}
	p.busy = false
	p.idle.Broadcast()
}

// Settle waits until nothing is being prepared.
func (p *Pool) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.busy {
		p.idle.Wait()
	}
}

// Close releases what is ready. Segments that were taken are not affected.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.wanted = nil
	ready := p.ready
	p.ready = map[int][]Segment{}
	p.mu.Unlock()
	p.Settle()
	for _, segs := range ready {
		for _, s := range segs {
			s.Close()
		}
	}
	return nil
}
