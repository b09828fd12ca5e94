package stream

import (
	"fmt"
	"time"

	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Payload is what the frames of a stream hold. Both sides must have the same.
type Payload struct {
	// Codec names how a frame's bytes become a value: "fixed" for values in
	// place, "bytes", or a codec's name.
	Codec string
	// Size and Fingerprint are a fixed payload's.
	Size        int
	Fingerprint uint64
	// Type is the Go type, for messages.
	Type string
}

// CreateOptions are an anchor's.
type CreateOptions struct {
	Payload        Payload
	Geometry       ring.Geometry // Payload, Producers and Fingerprint are filled in
	MaxSenders     int           // 1: exclusive
	Shared         bool
	OneRing        bool
	AttachTimeout  time.Duration // 0: none
	MessageTimeout time.Duration // 0: none
	Wait           shm.Strategy
	HugePages      bool
	Lanes          []string // allowed; nil: all
	Compression    []compress.Algorithm
}

// AttachOptions are an outlet's.
type AttachOptions struct {
	Payload Payload
	Wait    shm.Strategy
	Lanes   []string // allowed; nil: all

	Compression []compress.Algorithm
}

// check completes the options and tells what is wrong with them.
func (o *CreateOptions) check(maxMemory int64) error {
	if o.MaxSenders < 1 || o.MaxSenders > ring.MaxProducers {
		return fmt.Errorf("%w: %d senders: use 1 to %d", fault.ErrConfig, o.MaxSenders, ring.MaxProducers)
	}
	if o.AttachTimeout < 0 || o.MessageTimeout < 0 {
		return fmt.Errorf("%w: negative timeout: use 0 for none", fault.ErrConfig)
	}
	g := &o.Geometry
	g.Payload, g.Fingerprint, g.Producers = o.Payload.Size, o.Payload.Fingerprint, 1
	if o.OneRing {
		g.Producers = max(o.MaxSenders, 2)
	}
	if err := g.Validate(); err != nil {
		return fmt.Errorf("%w: %w", fault.ErrConfig, err)
	}
	if n := int64(g.SegmentSize()); n > maxMemory {
		return fmt.Errorf("%w: a ring of %d slots of %d bytes takes %d bytes, %d are allowed here: lower Capacity or raise MaxMemory",
			fault.ErrLimit, g.Slots, g.SlotSize, n, maxMemory)
	}
	return nil
}

func allowed(lanes []string, name string) bool {
	if lanes == nil {
		return true
	}
	for _, l := range lanes {
		if l == name {
			return true
		}
	}
	return false
}
