package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/lane"
)

// Registry is everything of one node that streams: its anchors, its outlets and
// the lanes they may use. Its methods may be called concurrently.
type Registry struct {
	node  *control.Node
	lanes []lane.Lane // best first
	log   *slog.Logger

	maxMemory int64
	memory    atomic.Int64 // bytes of segments held by inbounds
	huge      atomic.Int64 // of these, in huge pages

	anchors    table
	nextOutlet atomic.Uint64

	mu      sync.Mutex
	closing bool
	inbound map[inKey]*Inbound
	outlets map[uint64]*Outlet

	refused atomic.Uint64
}

// inKey is a session as the receiver knows it: the connection to the sender's node,
// nil for this process, and the name that the sender has given it. A worker's id
// would not do: a peer may claim any.
type inKey struct {
	peer   *control.Peer
	outlet uint64
}

// Config is what a registry is made of.
type Config struct {
	Node       *control.Node
	Lanes      []lane.Lane
	MaxStreams int
	MaxMemory  int64
	Logger     *slog.Logger
}

// Stats are gauges and counters of a registry.
type Stats struct {
	Anchors   int    `json:"anchors"`   // streams open for receiving
	Inbound   int    `json:"inbound"`   // sessions whose ring is held for receiving
	Outlets   int    `json:"outlets"`   // sessions open for sending
	Memory    int64  `json:"memory"`    // bytes of the rings held for receiving
	Refused   uint64 `json:"refused"`   // messages and frames of sessions that are not, or no more
	Senders   int    `json:"senders"`   // sessions attached now
	MaxBytes  int64  `json:"maxBytes"`  // what Memory may grow to
	HugeBytes int64  `json:"hugeBytes"` // of Memory, what is in huge pages: see the option HugePages
}

// New makes a registry and registers the handlers of the stream protocol.
func New(cfg Config) (*Registry, error) {
	g := &Registry{
		node: cfg.Node, lanes: cfg.Lanes, log: cfg.Logger, maxMemory: cfg.MaxMemory,
		inbound: map[inKey]*Inbound{}, outlets: map[uint64]*Outlet{},
	}
	g.anchors.size = min(cfg.MaxStreams, handle.MaxSlots)
	return g, errors.Join(
		g.node.HandleInline("stream_attach", g.serveAttach),
		g.node.HandleInline("stream_end", g.serveEnd),
		g.node.HandleAMInline("stream_ended", g.serveEnded),
		g.node.HandleAMInline("stream_cancel", g.serveCancel),
	)
}

// Stats reads the gauges.
func (g *Registry) Stats() Stats {
	g.anchors.mu.Lock()
	anchors := g.anchors.live
	g.anchors.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{Anchors: anchors, Outlets: len(g.outlets), Memory: g.memory.Load(), MaxBytes: g.maxMemory, HugeBytes: g.huge.Load(), Refused: g.refused.Load()}
	for _, l := range g.lanes {
		if r, ok := l.(lane.Refuser); ok {
			s.Refused += r.Refused()
		}
	}
	for _, in := range g.inbound {
		s.Inbound++
		if in.attached.Load() {
			s.Senders++
		}
	}
	return s
}

// Shutdown ends every outlet in order and cancels every anchor that has not
// ended by itself, then closes. What ctx does not leave time for is dropped.
func (g *Registry) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	outlets := make([]*Outlet, 0, len(g.outlets))
	for _, o := range g.outlets {
		outlets = append(outlets, o)
	}
	g.mu.Unlock()
	var errs []error
	for _, o := range outlets {
		if err := o.shutdown(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	for _, a := range g.anchors.all() {
		if err := a.Stop(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	for _, a := range g.anchors.all() {
		if err := a.drained(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stream %v: %w", a.h, err))
			break
		}
	}
	return errors.Join(append(errs, g.Close())...)
}

// Close ends everything at once: receivers see Dropped, senders ErrPeerDead.
func (g *Registry) Close() error {
	g.mu.Lock()
	g.closing = true
	outlets := make([]*Outlet, 0, len(g.outlets))
	for _, o := range g.outlets {
		outlets = append(outlets, o)
	}
	g.mu.Unlock()
	for _, o := range outlets {
		o.Close()
	}
	for _, a := range g.anchors.all() {
		a.Close()
	}
	var errs []error
	for _, l := range g.lanes {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (g *Registry) isClosing() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return fmt.Errorf("%w: streaming is shut down", fault.ErrClosed)
	}
	return nil
}

// reserve takes bytes of the memory budget.
func (g *Registry) reserve(bytes int) error {
	if n := g.memory.Add(int64(bytes)); n > g.maxMemory {
		g.memory.Add(-int64(bytes))
		return fmt.Errorf("%w: a ring of %d bytes would make %d, MaxMemory is %d: raise it, or lower Capacity", fault.ErrLimit, bytes, n, g.maxMemory)
	}
	return nil
}
