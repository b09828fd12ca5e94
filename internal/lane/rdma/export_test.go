package rdma

import (
	"time"

	"github.com/novastream/novastream/rdma"
)

// Hurry makes lanes that are made from now on give up early.
func Hurry(o rdma.ConnectOptions) {
	connectOptions = o
	probeEvery, probeIdle, helloAgain = 20*time.Millisecond, 40*time.Millisecond, 0
}

// QueueBatches is how many batches of one range fill a queue pair's send queue.
const QueueBatches = (sendDepth-maxBatch)/2 + 1
