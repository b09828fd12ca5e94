package conformance

import (
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// Holdings is what a process holds that a leak would grow.
type Holdings struct {
	Goroutines, Descriptors, Mappings, Threads int
}

// idleThreads is how many threads more than before are no leak: Go starts one
// when a call blocks and none is idle, and keeps it.
const idleThreads = 10

// Held counts what this process holds now. All but the goroutines are 0 where
// the system does not tell.
func Held() Holdings {
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

// settleTime is for how long Env.Held looks at once: it sees what comes and goes
// several times a second, such as a probe of a link and who carries a stream.
const settleTime = 400 * time.Millisecond

// Held is the most that is held during a while, as soon as the least does not change
// from one while to the next: segments are prepared in the background, and goroutines
// that live for a moment are no change.
func (e *Env) Held() Holdings {
	last, _ := heldFor(settleTime)
	for start := time.Now(); ; {
		least, most := heldFor(settleTime)
		if least == last {
			return most
		}
		require.Less(e, time.Since(start), Patience, "holdings keep changing: %+v, %+v", last, least)
		last = least
	}
}

// heldFor is the least and the most that is held during a time. Threads, which come
// and stay, count only in the most.
func heldFor(d time.Duration) (least, most Holdings) {
	least = Held()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	// Not by Until, whose own goroutines come and go.
	for start := time.Now(); time.Since(start) < d; <-tick.C {
		now := Held()
		least, most = least.least(now), most.most(now)
	}
	least.Threads = 0
	return least, most
}

// least is the smaller of each.
func (h Holdings) least(o Holdings) Holdings {
	return Holdings{
		Goroutines: min(h.Goroutines, o.Goroutines), Descriptors: min(h.Descriptors, o.Descriptors),
		Mappings: min(h.Mappings, o.Mappings), Threads: min(h.Threads, o.Threads),
	}
}

// most is the larger of each.
func (h Holdings) most(o Holdings) Holdings {
	return Holdings{
		Goroutines: max(h.Goroutines, o.Goroutines), Descriptors: max(h.Descriptors, o.Descriptors),
		Mappings: max(h.Mappings, o.Mappings), Threads: max(h.Threads, o.Threads),
	}
}

// Back waits until no more is held than before.
func (e *Env) Back(before Holdings) {
	e.Helper()
	var now Holdings
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); runtime.Gosched() {
		now = Held()
		if now.Goroutines <= before.Goroutines && now.Descriptors <= before.Descriptors && now.Mappings <= before.Mappings &&
			now.Threads <= before.Threads+idleThreads {
			return
		}
	}
	buf := make([]byte, 1<<16)
	require.Fail(e, "leak", "held before: %+v, now: %+v\n%s", before, now, buf[:runtime.Stack(buf, true)])
}
