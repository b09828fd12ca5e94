// Package rdma is the lane between two nodes whose devices can write into each
// other's registered memory. The receiver's ring lies in a region that one peer
// may write to; the sender's is a mirror, whose committed ranges its device
// writes to the same places there, and then announces. Credits, and what a sleeping
// side has to say, go back the same way.
//
//	sender                                            receiver
//	producer -> mirror =========== slots ===========> ring -> consumer
//	              |    ---- announcement, behind ---->  |
//	            head <------------ head --------------- |
//
// It knows verbs by package rdma only, and rings by package ring; it is no
// transport for anything but streams. What goes over the wire is in message.go
// (by Nova RPC, at attach and at a failure) and in words.go (by the device).
package rdma
