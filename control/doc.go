// Package control is Nova RPC: nodes that know each other by worker id, named
// handlers, deadlines, errors that keep their identity, and the news of a
// peer's death.
//
// There are two ways underneath one surface. On one host, a Unix socket for
// each pair of nodes carries everything, descriptors included, and its end is
// the peer's death. Between hosts it is gRPC, on a server of the node's own or
// on one that the user already has.
//
// Handlers are of two kinds: unary, with a request, an answer and a deadline,
// and active messages, which nobody answers. Each runs in a goroutine of its
// own, or, if it promises not to block, in the connection's reader.
//
// It is no message queue: what is sent to a peer that dies is lost, and said to
// be.
package control
