package rdma

import (
	"time"

	"github.com/novastream/novastream/rdma"
)

// The default settings.
var (
	defaultProbeEvery = probeEvery
	defaultHelloAgain = helloAgain
)

// Hurry makes lanes that are made from now on give up early.
func Hurry(o rdma.ConnectOptions) {
	connectOptions = o
	probeEvery, helloAgain = 20*time.Millisecond, 0
}

// Patience gives lanes that are made from now on the default settings.
func Patience() {
	connectOptions = rdma.ConnectOptions{}
	probeEvery, helloAgain = defaultProbeEvery, defaultHelloAgain
}

const (
	SignalEvery = signalEvery
	SendDepth   = sendDepth
)

// LossNoticed is after how long, with the default settings, both sides of a link
// are told of its loss at the latest, where the connection is lost too: of an idle
// link and of one under load. Outlasted is how long it may be cut at least.
func LossNoticed() (idle, busy, outlasted time.Duration) {
	return defaultProbeEvery + (probeRetries+1)*rdma.DefaultTimeout + tellTimeout,
		(rdma.DefaultRetryCount+1)*rdma.DefaultTimeout + tellTimeout, probeRetries * rdma.DefaultTimeout
}

// QueueBatches is how many batches of one range fill a queue pair's send queue.
const QueueBatches = (sendDepth-maxBatch)/2 + 1
