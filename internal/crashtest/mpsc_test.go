//go:build failpoint && linux

package crashtest

import "testing"

func TestCrash_MPSCProducerBeforeIntent(t *testing.T) {
	sender{ring: true, op: "send", point: "claim/begun", frames: first, end: dropped}.run(t)
}

func TestCrash_MPSCProducerWithinIntent(t *testing.T) {
	sender{ring: true, op: "send", point: "claim/info", frames: first, end: dropped}.run(t)
}

// The living one claims the same slots meanwhile, so this is also the one that has
// lost its swap.
func TestCrash_MPSCProducerAfterIntentBeforeSwap(t *testing.T) {
	sender{ring: true, op: "send", point: "claim/intent", frames: first, end: dropped}.run(t)
}

func TestCrash_MPSCProducerAfterSwapBeforeWrite(t *testing.T) {
	sender{ring: true, op: "send", point: "claim/won", frames: first, end: dropped, blocked: true}.run(t)
}

func TestCrash_MPSCProducerAfterWriteBeforeHeader(t *testing.T) {
	sender{ring: true, op: "send", point: "claimer/written", frames: first, end: dropped, blocked: true}.run(t)
}

func TestCrash_MPSCProducerAfterHeaderBeforePublish(t *testing.T) {
	sender{ring: true, op: "send", point: "claimer/header", frames: first, end: dropped, blocked: true}.run(t)
}

func TestCrash_MPSCProducerAfterPublishBeforeWake(t *testing.T) {
	sender{ring: true, op: "send", point: "claimer/committed", frames: first + 1, end: dropped, asleep: true}.run(t)
}

func TestCrash_MPSCProducerWithAReservation(t *testing.T) {
	sender{ring: true, op: "hold", point: "here", frames: first, end: dropped, blocked: true}.run(t)
}

// 21 frames of three slots, and one slot that is left to the end of the ring.
func TestCrash_MPSCProducerHasClaimedTheRestOfALap(t *testing.T) {
	sender{ring: true, op: "send", point: "claim/won-the-rest", bytes: true, size: 150, frames: 21, end: dropped, asleep: true}.run(t)
}

func TestCrash_MPSCProducerAfterPadBeforeItsClaim(t *testing.T) {
	sender{ring: true, op: "send", point: "claim/padded", bytes: true, size: 150, frames: 21, end: dropped, asleep: true}.run(t)
}

func TestCrash_MPSCProducerAfterTheRestOfItsClaim(t *testing.T) {
	sender{ring: true, op: "less", point: "claimer/rest-padded", bytes: true, size: 150, frames: first, end: dropped, blocked: true}.run(t)
}

func TestCrash_MPSCProducerWithAClaimOfSeveralSlots(t *testing.T) {
	sender{ring: true, op: "less", point: "claim/won", bytes: true, size: 300, frames: first, end: dropped, blocked: true}.run(t)
}

func TestCrash_MPSCProducerHasGivenItsClaimBack(t *testing.T) {
	sender{ring: true, op: "abandon", point: "claimer/abandoned", bytes: true, size: 150, frames: first, end: dropped}.run(t)
}

func TestCrash_MPSCFinalizeBeforeTheEndWord(t *testing.T) {
	sender{ring: true, op: "finalize", point: "claimer/end-begun", frames: first, end: dropped}.run(t)
}

func TestCrash_MPSCFinalizeBeforeItsEndIsCounted(t *testing.T) {
	sender{ring: true, op: "finalize", point: "claimer/end-written", frames: first, end: finalized}.run(t)
}

func TestCrash_MPSCFinalizeAfterItsEndIsCountedBeforeWake(t *testing.T) {
	sender{ring: true, op: "finalize", point: "claimer/end-counted", frames: first, end: finalized, asleep: true}.run(t)
}

func TestCrash_MPSCFinalizeBeforeSayingSo(t *testing.T) {
	sender{ring: true, op: "finalize", point: "end/marked", frames: first, end: finalized}.run(t)
}

func TestCrash_MPSCDetachBeforeSayingSo(t *testing.T) {
	sender{ring: true, op: "detach", point: "end/marked", frames: first, end: detached}.run(t)
}

func TestCrash_MPSCAttachBeforeTheRequest(t *testing.T) {
	sender{ring: true, op: "attach", point: "attach/offered", unheard: true}.run(t)
}

func TestCrash_MPSCAttachWithARecordBeforeMapping(t *testing.T) {
	sender{ring: true, op: "attach", point: "connect/descriptors", end: dropped}.run(t)
}

func TestCrash_MPSCAttachMappedBeforeItJoins(t *testing.T) {
	sender{ring: true, op: "attach", point: "join/begun", end: dropped}.run(t)
}

func TestCrash_MPSCAttachJoinedBeforeItIsConnected(t *testing.T) {
	sender{ring: true, op: "attach", point: "join/joined", end: dropped}.run(t)
}

func TestCrash_MPSCAttachConnectedBeforeItAnswers(t *testing.T) {
	sender{ring: true, op: "attach", point: "attach/connected", end: dropped}.run(t)
}
