package soft

import (
	"fmt"
	"sync"

	"github.com/novastream/novastream/rdma"
)

// region is registered memory. Whoever moves bytes into or out of it does so
// between enter and exit; Close returns when nobody is between the two.
type region struct {
	dom    *domain
	mem    []byte
	addr   uint64
	key    uint32
	access rdma.Access

	mu     sync.Mutex
	idle   sync.Cond
	closed bool
	users  int
	busy   map[interrupter]int // users that may take long
}

// interrupter is a transfer that may have to wait for a peer. interrupt makes it
// end soon and must not block.
type interrupter interface{ interrupt() }

func (r *region) Bytes() []byte { return r.mem }
func (r *region) Addr() uint64  { return r.addr }
func (r *region) LKey() uint32  { return r.key }
func (r *region) RKey() uint32  { return r.key }

// slice is the memory that [addr, addr+n) names, nil when it is not all inside.
func (r *region) slice(addr uint64, n uint32) []byte {
	off := addr - r.addr
	if addr < r.addr || off > uint64(len(r.mem)) || uint64(n) > uint64(len(r.mem))-off {
		return nil
	}
	return r.mem[off : off+uint64(n) : off+uint64(n)]
}

// enter begins an access; false when the region is closed. A transfer that may
// wait passes itself.
func (r *region) enter(x interrupter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.users++
	if x != nil {
		if r.busy == nil {
			r.busy = map[interrupter]int{}
		}
		r.busy[x]++
	}
	return true
}

func (r *region) exit(x interrupter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x != nil {
		if r.busy[x]--; r.busy[x] == 0 {
			delete(r.busy, x)
		}
	}
	if r.users--; r.users == 0 && r.closed {
		r.idle.Broadcast()
	}
}

// Close takes the key back, ends what is under way, and waits for that.
func (r *region) Close() error {
	r.dom.dev.revoke(r)
	r.dom.forgetRegion(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for x := range r.busy {
		x.interrupt()
	}
	for r.users > 0 {
		r.idle.Wait()
	}
	return nil
}

// keys is a device's table of regions. A key is used once in four thousand
// million registrations, and says nothing of the keys of others.
type keys struct {
	mu     sync.RWMutex
	byKey  map[uint32]*region
	next   uint32
	stride uint32 // odd, so that all keys come by before one comes again
	addr   uint64 // where the next region begins; addresses are not used again
}

func (k *keys) add(r *region) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.byKey[k.next] != nil || k.next == 0 {
		k.next += k.stride
	}
	r.key, r.addr = k.next, k.addr
	k.byKey[r.key] = r
	k.next += k.stride
	k.addr += (uint64(len(r.mem)) + 2*page - 1) &^ (page - 1) // and a page that is nobody's
}

// find is the memory that a key of the domain gives access to, nil when it does
// not.
func (k *keys) find(key uint32, dom *domain, need rdma.Access, addr uint64, n uint32) (*region, []byte) {
	k.mu.RLock()
	r := k.byKey[key]
	k.mu.RUnlock()
	if r == nil || r.dom != dom || r.access&need != need {
		return nil, nil
	}
	return r, r.slice(addr, n)
}

// revoke makes the region's key unknown.
func (d *Device) revoke(r *region) {
	d.keys.mu.Lock()
	defer d.keys.mu.Unlock()
	if d.keys.byKey[r.key] == r {
		delete(d.keys.byKey, r.key)
	}
}

func (m *domain) NewRegion(size int, access rdma.Access) (rdma.Region, error) {
	if limit := m.dev.limits().MaxRegion; size <= 0 || size > limit {
		return nil, fmt.Errorf("%w: a region of %d bytes: from 1 to %d on %s", rdma.ErrLimit, size, limit, m.dev.name())
	}
	r := &region{dom: m, mem: newMemory(size), access: access}
	r.idle.L = &r.mu
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(); err != nil {
		return nil, err
	}
	m.dev.keys.add(r)
	m.regions[r] = true
	return r, nil
}

func (r *region) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}
