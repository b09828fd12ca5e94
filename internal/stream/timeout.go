package stream

import (
	"fmt"
	"time"

	"github.com/novastream/novastream/internal/fault"
)

// TimeoutError is a timeout of a stream: it is fault.ErrTimeout.
type TimeoutError struct {
	What  string
	After time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%v: %s for %v", fault.ErrTimeout, e.What, e.After.Round(time.Millisecond))
}

// Is makes errors.Is(err, fault.ErrTimeout) hold.
func (e *TimeoutError) Is(target error) bool { return target == fault.ErrTimeout }

// attachTimer fires when nobody is attached for a time: armed by the creation
// and by each leaving, paused by each attaching. The anchor's lock guards it.
type attachTimer struct {
	d     time.Duration
	timer *time.Timer
	turn  uint64 // which arming a firing belongs to
}

func (t *attachTimer) arm(fire func(turn uint64)) {
	t.turn++
	if t.d <= 0 {
		return
	}
	turn := t.turn
	t.timer = time.AfterFunc(t.d, func() { fire(turn) })
}

func (t *attachTimer) pause() {
	t.turn++
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}
