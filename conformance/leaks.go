package conformance

import (
	"runtime"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/holding"
)

// Holdings is what a process holds that a leak would grow.
type Holdings = holding.Holdings

// Held counts what this process holds now.
func Held() Holdings { return holding.Now() }

// settleTime is for how long Env.Held looks at once: it sees what comes and goes
// several times a second, such as a probe of a link and who carries a stream.
const settleTime = 400 * time.Millisecond

// Held is the most that is held during a while, as soon as the least does not change
// from one while to the next: segments are prepared in the background, and goroutines
// that live for a moment are no change.
func (e *Env) Held() Holdings {
	last, _ := holding.Over(settleTime)
	for start := time.Now(); ; {
		least, most := holding.Over(settleTime)
		if least == last {
			return most
		}
		require.Less(e, time.Since(start), Patience, "holdings keep changing: %+v, %+v", last, least)
		last = least
	}
}

// Back waits until no more is held than before.
func (e *Env) Back(before Holdings) {
	e.Helper()
	var now Holdings
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); runtime.Gosched() {
		now = Held()
		if now.Within(before) {
			return
		}
	}
	buf := make([]byte, 1<<16)
	require.Fail(e, "leak", "held before: %+v, now: %+v\n%s", before, now, buf[:runtime.Stack(buf, true)])
}
