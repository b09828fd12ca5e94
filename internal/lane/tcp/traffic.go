package tcp

import (
	"sync/atomic"

	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/lane"
)

// traffic counts what a pump has sent; the pump adds, anybody may look.
type traffic struct {
	batches, compressed, frames, payload, wire atomic.Uint64
}

// add adds a batch, after which so many frames have been sent in all.
func (t *traffic) add(frames uint64, payload, wire int, used compress.Algorithm) {
	t.batches.Add(1)
	t.frames.Store(frames)
	t.payload.Add(uint64(payload))
	t.wire.Add(uint64(wire))
	if used != compress.None {
		t.compressed.Add(1)
	}
}

func (p *pump) traffic() lane.Traffic {
	return lane.Traffic{
		Compression: p.algorithm,
		Batches:     p.sent.batches.Load(), Compressed: p.sent.compressed.Load(),
		Frames: p.sent.frames.Load(), Payload: p.sent.payload.Load(), Wire: p.sent.wire.Load(),
	}
}
