// Package rdma is the little of verbs that a lane between hosts needs: devices,
// regions that a peer may write into, reliable connected queue pairs and
// completion queues, behind interfaces that libibverbs can implement to the
// letter. It moves no byte itself: providers do, and are found by name.
//
//	soft    rdma/soft: in Go, in one process or over TCP; needs nothing
//	verbs   rdma/verbs: libibverbs, behind the build tag verbs
//
// It knows nothing of rings, frames or streams, and is no general binding of
// verbs: no atomics, no memory windows, no shared receive queues, no datagrams.
//
// # Who may call what
//
// Devices and domains are safe for concurrent use. A completion queue has one
// goroutine that calls Poll and Wait. A queue pair has one goroutine that calls
// PostSend and one, the same or another, that calls PostRecv; all else of it may
// be called by anybody. Close may be called by anybody, at any time, more than
// once: a call that it meets ends with ErrClosed. Closing something first closes
// what was made from it or uses it: a device its domains, a domain its queue
// pairs, completion queues and regions, a completion queue its queue pairs.
//
// # Who owns which memory when
//
// A region's memory is the provider's, and is there until its Close. Memory that
// a work request names belongs to the queue pair from the post until the request
// is known to be done: its completion has been polled, or that of a later request
// of the same queue. An inline request is done with its memory when PostSend
// returns.
//
// A peer that holds a region's key may write into it at any moment. The owner
// learns that bytes have arrived in one of two ways, and only from them:
//
//   - a completion of OpRecv or OpRecvWrite: when it has been polled, all that the
//     peer wrote before on that queue pair can be read;
//   - a word: a WRITE of 8 bytes to an address that 8 divides is stored whole and
//     with release semantics, after all that the peer wrote before it on that queue
//     pair. The owner loads it with acquire semantics (sync/atomic).
//
// Nothing is said of the order in which the bytes of one WRITE arrive, nor of
// bytes that have not been announced: they may be seen early, late, or in part.
package rdma
