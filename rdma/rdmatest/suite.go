// Package rdmatest is what every provider of package rdma must do, as a suite of
// tests that takes a provider's devices. It asks for no more than verbs promises,
// and in cases that only faults can produce it needs devices that can be told to
// fail.
package rdmatest

import (
	"testing"
	"time"

	"github.com/novastream/novastream/rdma"
)

// Open opens the two devices that a case is to use. They may be two openings of
// one device, and must be able to reach each other. The suite closes them.
type Open func(t testing.TB) (a, b rdma.Device)

// FaultInjector is a device that fails when it is told to. Cases that need one are
// skipped for devices that are none.
type FaultInjector interface {
	rdma.Device
	// Lose makes each transmission fail with the given probability.
	Lose(probability float64)
	// Delay makes each request wait for up to max before it is transmitted, in
	// order within a queue pair.
	Delay(max time.Duration)
	// Stall makes the device transmit nothing until it is called with false.
	Stall(on bool)
	// Cut cuts the link for a time, 0: until Mend.
	Cut(span time.Duration)
	Mend()
	// PortDown and PortUp are what the port of a NIC does.
	PortDown()
	PortUp()
	// Revoke takes a region's keys back under its owner.
	Revoke(r rdma.Region)
	// Remove takes the device away.
	Remove()
}

// cases are the suite, by name. The functions are in the files of this package by
// subject.
var cases = []struct {
	name string
	run  func(*env)
}{
	{"Write", write},
	{"WriteSizes", writeSizes},
	{"WriteImm", writeImm},
	{"SendRecv", sendRecv},
	{"Read", read},
	{"Inline", inline},
	{"Unsignaled", unsignaled},
	{"Order", order},
	{"OrderAcrossKinds", orderAcrossKinds},
	{"RemoteAccess", remoteAccess},
	{"StaleKey", staleKey},
	{"LocalProtection", localProtection},
	{"RecvTooSmall", recvTooSmall},
	{"Limits", limits},
	{"States", states},
	{"MTU", mtu},
	{"RNR", rnr},
	{"RNRExhausted", rnrExhausted},
	{"PeerConnectsLater", peerConnectsLater},
	{"PeerGone", peerGone},
	{"Abort", abort},
	{"QueueFull", queueFull},
	{"SharedCQ", sharedCQ},
	{"CQOverflow", cqOverflow},
	{"Wait", wait},
	{"WaitEnds", waitEnds},
	{"EventEnds", eventEnds},
	{"CloseAnyOrder", closeAnyOrder},
	{"CloseUnderway", closeUnderway},
	{"NothingLeft", nothingLeft},
	{"FaultLoss", faultLoss},
	{"FaultDelay", faultDelay},
	{"FaultCutMended", faultCutMended},
	{"FaultCut", faultCut},
	{"FaultStall", faultStall},
	{"FaultRevoke", faultRevoke},
	{"FaultPort", faultPort},
	{"FaultRemove", faultRemove},
	{"FaultQPFatal", faultQPFatal},
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, open)) })
	}
}
