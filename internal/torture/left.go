package torture

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/novastream/novastream/internal/holding"
)

// settleTime is for how long the survivor is looked at at once.
const settleTime = 400 * time.Millisecond

// settle is the most that the survivor holds once the least changes no more.
func (t *Torture) settle() holding.Holdings {
	last, most := holding.Over(settleTime)
	for limit := time.Now().Add(hang); time.Now().Before(limit); {
		var now holding.Holdings
		if now, most = holding.Over(settleTime); now == last {
			break
		}
		last = now
	}
	return most
}

// leaks waits until no more is held than before, and tells of what is left.
func (t *Torture) leaks(l *Lane) {
	if t.Sabotage == SabotageLeak {
		leak()
	}
	var now holding.Holdings
	var empty error
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		now, empty = holding.Now(), t.hosts[l].empty()
		if now.Within(t.before) && empty == nil {
			break
		}
		runtime.GC() // what is forgotten is closed by cleanups
	}
	if empty != nil {
		t.find(l, nil, finding{findLeft, empty.Error()})
	}
	if !now.Within(t.before) {
		t.find(l, nil, finding{findLeft, fmt.Sprintf("held before: %+v, now: %+v", t.before, now)})
		t.Log("%s", stacks())
		t.before = t.before.Most(now) // it is told once
	}
	if files := t.files(context.Background(), l); len(files) > 0 {
		t.find(l, nil, finding{findLeft, fmt.Sprintf("files: %v", files)})
	}
}
