//go:build failpoint && linux

package crashtest

import "testing"

// Finalize and detach, in a ring of the sender's own.

func TestCrash_FinalizeBeforeTheEndWord(t *testing.T) {
	sender{op: "finalize", point: "end/begun", frames: first, end: dropped}.run(t)
}

func TestCrash_FinalizeAfterTheEndWordBeforeWake(t *testing.T) {
	sender{op: "finalize", point: "end/written", frames: first, end: finalized, asleep: true}.run(t)
}

func TestCrash_FinalizeBeforeSayingSo(t *testing.T) {
	sender{op: "finalize", point: "end/marked", frames: first, end: finalized}.run(t)
}

func TestCrash_FinalizeAfterSayingSo(t *testing.T) {
	sender{op: "finalize", point: "end/said", frames: first, end: finalized}.run(t)
}

func TestCrash_DetachBeforeTheEndWord(t *testing.T) {
	sender{op: "detach", point: "end/begun", frames: first, end: dropped}.run(t)
}

func TestCrash_DetachAfterTheEndWordBeforeWake(t *testing.T) {
	sender{op: "detach", point: "end/written", frames: first, end: detached, asleep: true}.run(t)
}

func TestCrash_DetachBeforeSayingSo(t *testing.T) {
	sender{op: "detach", point: "end/marked", frames: first, end: detached}.run(t)
}

func TestCrash_DetachAfterSayingSo(t *testing.T) {
	sender{op: "detach", point: "end/said", frames: first, end: detached}.run(t)
}

func TestCrash_DetachBeforeItsSegmentIsKept(t *testing.T) {
	sender{op: "detach", point: "connect/released", frames: first, end: detached}.run(t)
}

// Attach and the hand-over of the segment, at the sender.

func TestCrash_AttachBeforeTheRequest(t *testing.T) {
	sender{op: "attach", point: "attach/offered", unheard: true}.run(t)
}

func TestCrash_AttachAfterTheAnswer(t *testing.T) {
	sender{op: "attach", point: "attach/answered", end: dropped}.run(t)
}

func TestCrash_HandOverWithDescriptorsBeforeMapping(t *testing.T) {
	sender{op: "attach", point: "connect/descriptors", end: dropped}.run(t)
}

func TestCrash_HandOverMappedBeforeOpening(t *testing.T) {
	sender{op: "attach", point: "connect/mapped", end: dropped}.run(t)
}

func TestCrash_AttachConnectedBeforeItAnswers(t *testing.T) {
	sender{op: "attach", point: "attach/connected", end: dropped}.run(t)
}

func TestCrash_ReUseTakenBeforeConnecting(t *testing.T) {
	sender{op: "again", point: "connect/again", end: dropped}.run(t)
}

func TestCrash_ReUseOffered(t *testing.T) {
	sender{op: "again", point: "attach/offered", unheard: true}.run(t)
}
