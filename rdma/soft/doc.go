// Package soft is the provider of rdma that needs no device: regions, keys, queue
// pairs and completions in Go, with the semantics of verbs. Queue pairs of one
// process reach each other's memory directly, those of two processes over TCP. It
// serves tests, which can set faults on its devices, and is what a user without a
// NIC may choose by name.
//
// It is as strict as verbs where a user might get used to less: a send queue's
// places come free by polling completions, keys and bounds are checked on both
// sides, a completion queue that overflows is lost. It does not split messages
// into packets: the MTU is only compared.
//
// Each queue pair has a goroutine that executes its send queue, and one for each of
// its connections to another process; all sleep while there is nothing to do.
package soft
