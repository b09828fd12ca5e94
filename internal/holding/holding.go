// Package holding counts what a process holds that a leak would grow. It is no
// profiler: it tells that something leaks, not what.
package holding

import (
	"os"
	"runtime"
	"strings"
	"time"
)

// Holdings is what a process holds.
type Holdings struct {
	Goroutines, Descriptors, Mappings, Threads int
}

// IdleThreads is how many threads more than before are no leak: Go starts one
// when a call blocks and none is idle, and keeps it.
const IdleThreads = 10

// Now counts what this process holds now. All but the goroutines are 0 where
// the system does not tell.
func Now() Holdings {
	h := Holdings{Goroutines: runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.Descriptors = len(fds)
	}
	if threads, err := os.ReadDir("/proc/self/task"); err == nil {
		h.Threads = len(threads)
	}
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		h.Mappings = strings.Count(string(maps), "memfd:nova-ring")
	}
	return h
}

// Within tells whether it is no more than another, but for threads that idle.
func (h Holdings) Within(o Holdings) bool {
	return h.Goroutines <= o.Goroutines && h.Descriptors <= o.Descriptors && h.Mappings <= o.Mappings &&
		h.Threads <= o.Threads+IdleThreads
}

// Over is the least and the most that is held during a time. Threads, which come
// and stay, count only in the most.
func Over(d time.Duration) (least, most Holdings) {
	least = Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < d; <-tick.C {
		now := Now()
		least, most = least.Least(now), most.Most(now)
	}
	least.Threads = 0
	return least, most
}

// Least is the smaller of each.
func (h Holdings) Least(o Holdings) Holdings {
	return Holdings{
		Goroutines: min(h.Goroutines, o.Goroutines), Descriptors: min(h.Descriptors, o.Descriptors),
		Mappings: min(h.Mappings, o.Mappings), Threads: min(h.Threads, o.Threads),
	}
}

// Most is the larger of each.
func (h Holdings) Most(o Holdings) Holdings {
	return Holdings{
		Goroutines: max(h.Goroutines, o.Goroutines), Descriptors: max(h.Descriptors, o.Descriptors),
		Mappings: max(h.Mappings, o.Mappings), Threads: max(h.Threads, o.Threads),
	}
}
