// Package novastream streams frames between goroutines, processes and hosts,
// without a copy that is not needed: a receiver creates a stream and gets a
// 16-byte Handle; senders anywhere attach by the handle; frames land straight
// in the slots of a ring that both sides can address.
//
//	rx, _ := novastream.Create[Tick](streaming)          // one process
//	publish(rx.Handle())
//	for tick, err := range rx.Values(ctx) { … }
//
//	tx, _ := novastream.Attach[Tick](ctx, streaming, h)  // another
//	err := tx.Send(ctx, tick)
//	err = tx.Finalize(ctx)
//
// Control messages travel over Nova RPC (package control); data does not, when
// it need not. What is committed is delivered, in order and whole, whatever
// happens to the sender; a peer's death is noticed as soon as the kernel closes
// its socket.
//
// It is not a message broker: nothing is stored, and a stream has one receiver.
package novastream

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/internal/lane/local"
	lshm "github.com/novastream/novastream/internal/lane/shm"
	"github.com/novastream/novastream/internal/lane/tcp"
	"github.com/novastream/novastream/internal/stream"
)

// Streaming is what makes a node stream. Its methods may be called from any
// goroutine.
type Streaming struct {
	reg  *stream.Registry
	node *control.Node
}

// Stats are gauges and counters of a Streaming.
type Stats = stream.Stats

// New adds streaming to a node. One Streaming per node: it registers the
// handlers of the stream protocol there.
func New(node *control.Node, opts ...Option) (*Streaming, error) {
	if node == nil {
		return nil, fmt.Errorf("%w: New needs a node: see control.Listen", fault.ErrConfig)
	}
	c := config{maxStreams: handle.MaxSlots, maxMemory: DefaultMaxMemory, log: node.Logger()}
	for _, o := range opts {
		o(&c)
	}
	if c.maxStreams < 1 || c.maxStreams > handle.MaxSlots {
		return nil, fmt.Errorf("%w: MaxStreams(%d): use 1 to %d", fault.ErrConfig, c.maxStreams, handle.MaxSlots)
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	lanes, err := openLanes(node, &c)
	if err != nil {
		return nil, err
	}
	reg, err := stream.New(stream.Config{Node: node, Lanes: lanes, MaxStreams: c.maxStreams, MaxMemory: c.maxMemory, Logger: c.log})
	if err != nil {
		return nil, err
	}
	return &Streaming{reg: reg, node: node}, nil
}

// openLanes lists the lanes, best first. A new lane is one line here.
func openLanes(node *control.Node, c *config) ([]lane.Lane, error) {
	r, err := openRDMA(node, c.rdma)
	if err != nil {
		return nil, err
	}
	t, err := tcp.New(node)
	if err != nil {
		return nil, err
	}
	return []lane.Lane{local.New(), lshm.New(c.log), r, t}, nil
}

// Node is the node that the Streaming was made on.
func (s *Streaming) Node() *control.Node { return s.node }

// Stats reads the gauges.
func (s *Streaming) Stats() Stats { return s.reg.Stats() }

// Shutdown ends all streams in order: outlets are ended, streams that are open
// for receiving are stopped and may be read to their end, as far as ctx leaves
// time; then it closes. New streams and attaches are refused at once.
func (s *Streaming) Shutdown(ctx context.Context) error { return s.reg.Shutdown(ctx) }

// Close ends all streams at once: receivers get KindDropped, senders
// ErrPeerDead. The node stays open.
func (s *Streaming) Close() error { return s.reg.Close() }
