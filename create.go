package novastream

import (
	"fmt"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
	"github.com/novastream/novastream/ring"
)

func newCreateConfig(opts []CreateOption) *createConfig {
	c := &createConfig{}
	c.MaxSenders, c.AttachTimeout, c.MessageTimeout = 1, DefaultAttachTimeout, DefaultMessageTimeout
	for _, o := range opts {
		o.create(c)
	}
	return c
}

// make fills in the geometry and makes the anchor.
func (c *createConfig) make(s *Streaming, p stream.Payload) (*stream.Anchor, error) {
	if s == nil {
		return nil, fmt.Errorf("%w: no Streaming: see New", fault.ErrConfig)
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.CreateOptions.OneRing && !c.CreateOptions.Shared {
		return nil, fmt.Errorf("%w: OneRing is for shared streams: add Shared(n)", fault.ErrConfig)
	}
	c.Payload = p
	producers := 1
	if c.CreateOptions.OneRing {
		producers = max(c.MaxSenders, 2)
	}
	size, bytes := DefaultBytesSlot, DefaultBytesRing
	if p.Size > 0 {
		size, bytes = ring.FixedSlotSize(p.Size, producers), DefaultRingBytes
	}
	if c.slotSize != 0 {
		size = c.slotSize
	}
	c.Geometry.SlotSize = size
	c.Geometry.Slots = c.capacity
	if !c.capacitySet {
		// At least 16, however large the value.
		c.Geometry.Slots = max(bytes/max(size, 1), 16)
	}
	return s.reg.Create(c.CreateOptions)
}
