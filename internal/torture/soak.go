package torture

import (
	"fmt"
	"os"
	"runtime"

	"github.com/novastream/novastream/internal/holding"
)

// memory is what a process uses, in bytes.
type memory struct {
	Heap     uint64 // that is reachable
	Resident uint64 // 0 where the system does not tell
}

func memoryNow() (m memory) {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	m.Heap = s.HeapAlloc
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident uint64
		if _, err := fmt.Sscan(string(b), &size, &resident); err == nil {
			m.Resident = resident * uint64(os.Getpagesize())
		}
	}
	return m
}

// held is what a child says of itself.
type held struct {
	holding.Holdings
	memory
	Peers int // connections that it has: they are kept, and each takes some of all that
}

// heldEvery is after how many jobs a child says so, and fewestHeld how many of its
// answers are judged at least.
const (
	heldEvery  = 10
	fewestHeld = 8
)

// What may come and go of the heap and of memory.
const (
	heapSlack     = 4 << 20
	residentSlack = 24 << 20
)

// heldSlack is the same of what else is held: the most segments that were needed at a
// time are kept for each peer, and that most still grows when it has become rare. Each has
// three descriptors, and a sender maps it in two parts.
var heldSlack = holding.Holdings{Goroutines: 24, Descriptors: 3 * 16, Mappings: 2 * 16}

// grown tells of a child that holds more at the end of its life than before, since it
// has known everybody.
func (t *Torture) grown(l *Lane, c *child) {
	all := c.held
	for len(all) > 0 && all[0].Peers < all[len(all)-1].Peers {
		all = all[1:] // it still met others
	}
	if len(all) < fewestHeld {
		return
	}
	var early holding.Holdings
	for _, h := range all[:len(all)/2] {
		early = early.Most(h.Holdings)
	}
	late := all[len(all)-1]
	early.Goroutines += heldSlack.Goroutines
	early.Descriptors += heldSlack.Descriptors
	early.Mappings += heldSlack.Mappings
	if !late.Within(early) {
		t.find(l, nil, finding{findLeft, fmt.Sprintf("a child of %d jobs holds %+v, before %+v at most", c.used, late.Holdings, early)})
	}
	t.swollen(l, "a child", memories(all))
}

func memories(all []held) (ms []memory) {
	for _, h := range all {
		ms = append(ms, h.memory)
	}
	return ms
}

// flat tells of a survivor that uses more and more.
func (t *Torture) flat() {
	if t.Soak {
		t.swollen(t.Lanes[0], "the survivor", t.memory)
	}
}

// swollen compares the least memory of the second quarter with that of the last one.
func (t *Torture) swollen(l *Lane, who string, all []memory) {
	n := len(all) / 4
	if n < 2 {
		return
	}
	early, late := least(all[n:2*n]), least(all[len(all)-n:])
	if late.Heap > early.Heap+early.Heap/5+heapSlack || late.Resident > early.Resident+early.Resident/5+residentSlack {
		t.find(l, nil, finding{findLeft, fmt.Sprintf("%s uses %+v bytes, before %+v", who, late, early)})
	}
	t.Log("lane %s: %s: heap %d KiB -> %d KiB, resident %d KiB -> %d KiB", l.Name, who, early.Heap>>10, late.Heap>>10, early.Resident>>10, late.Resident>>10)
}

func least(all []memory) memory {
	m := all[0]
	for _, x := range all {
		m.Heap, m.Resident = min(m.Heap, x.Heap), min(m.Resident, x.Resident)
	}
	return m
}
