package novastream

import (
	"fmt"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/fault"
	lrdma "github.com/novastream/novastream/internal/lane/rdma"
	"github.com/novastream/novastream/rdma"
	_ "github.com/novastream/novastream/rdma/soft" // registers the provider
)

// openRDMA makes the lane with the provider that was asked for, or else with verbs.
func openRDMA(node *control.Node, c *rdmaConfig) (*lrdma.Lane, error) {
	if c == nil {
		p, err := rdma.Lookup("verbs")
		return lrdma.New(node, lrdma.Config{Provider: p, Absent: err})
	}
	p, err := rdma.Lookup(c.provider)
	if err != nil {
		return nil, fmt.Errorf("%w: RDMA(%q, %q): %w", fault.ErrConfig, c.provider, c.device, err)
	}
	l, err := lrdma.New(node, lrdma.Config{Provider: p, Device: c.device, Now: true})
	if err != nil {
		return nil, fmt.Errorf("RDMA(%q, %q): %w", c.provider, c.device, err)
	}
	return l, nil
}
