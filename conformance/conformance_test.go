package conformance

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// each runs a case over every lane.
func each(t *testing.T, c Case) {
	for _, l := range Lanes() {
		Run(t, l, c)
	}
}

func TestConf_01_HandleRoundTrip(t *testing.T)   { each(t, HandleRoundTrip) }
func TestConf_02_StaleGeneration(t *testing.T)   { each(t, StaleGeneration) }
func TestConf_03_OutOfAnchors(t *testing.T)      { each(t, OutOfAnchors) }
func TestConf_04_OneSender(t *testing.T)         { each(t, OneSender) }
func TestConf_05_FiveErrors(t *testing.T)        { each(t, FiveErrors) }
func TestConf_06_AfterDetach(t *testing.T)       { each(t, AfterDetach) }
func TestConf_07_LateDetached(t *testing.T)      { each(t, LateDetached) }
func TestConf_08_DetachFull(t *testing.T)        { each(t, DetachFull) }
func TestConf_09_FinalizedLast(t *testing.T)     { each(t, FinalizedLast) }
func TestConf_10_TerminalsWhenFull(t *testing.T) { each(t, TerminalsWhenFull) }
func TestConf_11_DropIsNotFinalize(t *testing.T) { each(t, DropIsNotFinalize) }
func TestConf_12_PanicDrops(t *testing.T)        { each(t, PanicDrops) }
func TestConf_13_Killed(t *testing.T)            { each(t, Killed) }
func TestConf_14_KilledFull(t *testing.T)        { each(t, KilledFull) }
func TestConf_15_SlowConsumer(t *testing.T)      { each(t, SlowConsumer) }
func TestConf_16_Heartbeats(t *testing.T)        { each(t, Heartbeats) }
func TestConf_17_SoftErrors(t *testing.T)        { each(t, SoftErrors) }
func TestConf_18_Undecodable(t *testing.T)       { each(t, Undecodable) }
func TestConf_19_FullKeepsItem(t *testing.T)     { each(t, FullKeepsItem) }
func TestConf_20_ProgressReports(t *testing.T)   { each(t, ProgressReports) }
func TestConf_21_AttachTimeouts(t *testing.T)    { each(t, AttachTimeouts) }
func TestConf_22_AttachRacesCancel(t *testing.T) { each(t, AttachRacesCancel) }
func TestConf_23_CancelStorm(t *testing.T)       { each(t, CancelStorm) }
func TestConf_24_CancelWakes(t *testing.T)       { each(t, CancelWakes) }
func TestConf_25_CancelTouchesOne(t *testing.T)  { each(t, CancelTouchesOne) }
func TestConf_26_StopDrains(t *testing.T)        { each(t, StopDrains) }
func TestConf_27_ReceiverGone(t *testing.T)      { each(t, ReceiverGone) }
func TestConf_28_ManySenders(t *testing.T)       { each(t, ManySenders) }
func TestConf_29_CrashLeavesOthers(t *testing.T) { each(t, CrashLeavesOthers) }
func TestConf_30_EqualSlots(t *testing.T)        { each(t, CancelTouchesOne) }
func TestConf_31_StaleSession(t *testing.T)      { each(t, StaleSession) }
func TestConf_32_Capacity(t *testing.T)          { each(t, Capacity) }
func TestConf_33_LaneByName(t *testing.T)        { each(t, LaneByName) }
func TestConf_34_StalledSibling(t *testing.T)    { each(t, StalledSibling) }
func TestConf_35_PeerRestarts(t *testing.T)      { each(t, PeerRestarts) }
func TestConf_36_FailedAttach(t *testing.T)      { each(t, FailedAttach) }
func TestConf_42_ShutdownInOrder(t *testing.T)   { each(t, ShutdownInOrder) }
func TestConf_43_ThousandCycles(t *testing.T)    { each(t, ThousandCycles) }
func TestConf_45_LentSlots(t *testing.T)         { each(t, LentSlots) }
func TestConf_46_Hostile(t *testing.T)           { each(t, Hostile) }
func TestConf_47_Frozen(t *testing.T)            { each(t, Frozen) }
func TestConf_48_StopWhenFull(t *testing.T)      { each(t, StopWhenFull) }
func TestConf_49_SilentProducer(t *testing.T)    { each(t, SilentProducer) }
func TestConf_50_GoneBeforeFirst(t *testing.T)   { each(t, GoneBeforeFirst) }
func TestConf_51_StartUpKilled(t *testing.T)     { each(t, StartUpKilled) }
func TestConf_52_FlatMemory(t *testing.T)        { each(t, FlatMemory) }
func TestConf_53_TwoNodes(t *testing.T)          { each(t, TwoNodes) }
func TestConf_54_FinalizeAndExit(t *testing.T)   { each(t, FinalizeAndExit) }
func TestConf_55_RetryUntilTaken(t *testing.T)   { each(t, FullKeepsItem) }
func TestConf_56_SingleProcessor(t *testing.T)   { each(t, SingleProcessor) }
func TestConf_57_EarlyFrames(t *testing.T)       { each(t, EarlyFrames) }
func TestConf_58_ReceiverKilled(t *testing.T)    { each(t, ReceiverKilled) }
func TestConf_59_NilMeansKept(t *testing.T)      { each(t, NilMeansKept) }
func TestConf_60_SegmentReuse(t *testing.T)      { each(t, SegmentReuse) }
