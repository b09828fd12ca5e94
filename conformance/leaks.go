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

// Held is Held when it has stopped to change: segments are prepared in the
// background.
func (e *Env) Held() Holdings {
	last, since, start := Held(), time.Now(), time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	// Not by Until, whose own goroutines come and go. What is asked for is less
	// than the pause between two probes of a link.
	for time.Since(since) < 400*time.Millisecond {
		require.Less(e, time.Since(start), Patience, "holdings keep changing")
		<-tick.C
		now := Held()
		now.Threads = last.Threads // they come and stay
		if now != last {
			last, since = now, time.Now()
		}
	}
	last.Threads = Held().Threads
	return last
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
