package conformance

import (
	"runtime"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/internal/holding"
)

// Holdings is what a process holds that a leak would grow.
type Holdings = holding.Holdings

// Held counts what this process holds now.
func Held() Holdings { return holding.Now() }

// settleTime is for how long Env.Held looks at once: it sees what comes and goes
// several times a second, such as a probe of a link and who carries a stream.
const settleTime = 400 * time.Millisecond

// Both is what the processes of both sides hold. Where there is but one, the sending
// side's is nothing.
type Both struct {
	Holdings
	Sending Holdings
}

// Most is the larger of each.
func (b Both) Most(o Both) Both {
	return Both{b.Holdings.Most(o.Holdings), b.Sending.Most(o.Sending)}
}

// Warm has one session for as long as Held looks at least, so that what the two nodes
// keep for each other is there: the queue pair by which a link of the lane rdma is
// probed is connected by the first probe that finds a session.
func (e *Env) Warm() {
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	if e.Lane.Lane == novastream.LaneRDMA {
		e.Held()
	}
	require.NoError(e, tx.Close())
	require.NoError(e, rx.Close())
	e.Until(func() bool { return e.RX.Stats().Inbound == 0 && e.TX.Stats().Outlets == 0 }, "sessions are left")
}

// Held is the most that is held during a while, as soon as the least does not change
// from one while to the next: segments are prepared in the background, and goroutines
// that live for a moment are no change.
func (e *Env) Held() Both {
	last, _ := e.heldOver()
	for start := time.Now(); ; {
		least, most := e.heldOver()
		if least == last {
			return most
		}
		require.Less(e, time.Since(start), Patience, "holdings keep changing: %+v, %+v", last, least)
		last = least
	}
}

func (e *Env) heldOver() (least, most Both) {
	least.Holdings, most.Holdings = holding.Over(settleTime)
	if e.Lane.Apart {
		least.Sending, most.Sending = e.TX.HeldOver(settleTime)
	}
	return least, most
}

// Back waits until no more is held than before.
func (e *Env) Back(before Both) {
	e.Helper()
	var now Both
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); runtime.Gosched() {
		now.Holdings = Held()
		if e.Lane.Apart {
			now.Sending = e.TX.Held()
		}
		if now.Within(before.Holdings) && now.Sending.Within(before.Sending) {
			return
		}
	}
	buf := make([]byte, 1<<16)
	require.Fail(e, "leak", "held before: %+v, now: %+v\n%s", before, now, buf[:runtime.Stack(buf, true)])
}
