//go:build failpoint && linux

package crashtest

import (
	"testing"

	"github.com/novastream/novastream"
)

const (
	dropped   = novastream.KindDropped
	finalized = novastream.KindFinalized
	detached  = novastream.KindDetached
)

func TestCrash_SPSCProducerBeforeWrite(t *testing.T) {
	sender{op: "send", point: "put/begun", frames: first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerAfterWriteBeforePublish(t *testing.T) {
	sender{op: "send", point: "put/written", frames: first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerAfterPublishBeforeWake(t *testing.T) {
	sender{op: "send", point: "put/published", frames: first + 1, end: dropped, asleep: true}.run(t)
}

func TestCrash_SPSCProducerInALoopBeforePublish(t *testing.T) {
	sender{op: "slots", point: "slots/written", nth: 3, frames: first + 2, end: dropped}.run(t)
}

func TestCrash_SPSCProducerInALoopAfterPublishBeforeWake(t *testing.T) {
	sender{op: "slots", point: "slots/published", nth: 3, frames: first + 3, end: dropped, asleep: true}.run(t)
}

func TestCrash_SPSCProducerWithAReservation(t *testing.T) {
	sender{op: "hold", frames: first, end: dropped, point: "here"}.run(t)
}

func TestCrash_SPSCProducerAfterCommitBeforeGivingBack(t *testing.T) {
	sender{op: "reserve", point: "commit/published", frames: first + 1, end: dropped, asleep: true}.run(t)
}

func TestCrash_SPSCProducerWithinABatch(t *testing.T) {
	sender{op: "batch", point: "batch/all-but-first", frames: first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerWithinASoftError(t *testing.T) {
	sender{op: "softerror", point: "soft/all-but-first", frames: first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerAfterClearingTheNextSlot(t *testing.T) {
	sender{op: "send", point: "bytes/cleared", bytes: true, size: 150, frames: first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerAfterLengthBeforePublish(t *testing.T) {
	sender{op: "send", point: "bytes/length", bytes: true, size: 150, frames: first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerBytesAfterPublishBeforeWake(t *testing.T) {
	sender{op: "send", point: "bytes/published", bytes: true, size: 150, frames: first + 1, end: dropped, asleep: true}.run(t)
}

// 21 frames of three slots, and one slot that is left to the end of the ring.
func TestCrash_SPSCProducerAfterPadBeforeItsFrame(t *testing.T) {
	sender{op: "send", point: "bytes/padded", bytes: true, size: 150, frames: 21, end: dropped, asleep: true}.run(t)
}

func TestCrash_SPSCProducerArmedOnAFullRing(t *testing.T) {
	sender{op: "fill", point: "park/armed", capacity: 16, frames: 16 + first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerAsleepOnAFullRing(t *testing.T) {
	sender{op: "fill", point: "park/looked", capacity: 16, frames: 16 + first, end: dropped}.run(t)
}

func TestCrash_SPSCProducerClosedWithAReservationBeforeWake(t *testing.T) {
	sender{op: "close", point: "abort/written", frames: first, end: dropped, asleep: true}.run(t)
}
