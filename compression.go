package novastream

import (
	"fmt"

	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/stream"
)

// Compressor is a way to make what crosses a network smaller.
type Compressor string

// The compressors.
const (
	CompressionNone Compressor = "none"
	CompressionS2   Compressor = "s2"   // fast: the first choice
	CompressionZstd Compressor = "zstd" // smaller, at several times the work
)

var algorithms = map[Compressor]compress.Algorithm{
	CompressionNone: compress.None, CompressionS2: compress.S2, CompressionZstd: compress.Zstd,
}

// Compression is what this end agrees to where the lane crosses a network: a
// receiver takes any of those that it names, a sender uses the first that its
// receiver takes. The default of both is none, so it takes both ends to
// compress. Where they agree on none, and on a lane that crosses no network
// (local, shm), frames travel as they are; Sender.Compression tells what is in
// use.
//
// Frames are compressed in the batches in which they are carried, each batch on
// its own, and what does not shrink travels as it is. See docs/tuning.md for
// when it pays. Any but the constants makes Create and Attach answer ErrConfig.
func Compression(compressors ...Compressor) EndOption {
	var list []compress.Algorithm
	var err error
	for _, c := range compressors {
		a, ok := algorithms[c]
		if !ok && err == nil {
			err = fmt.Errorf("%w: Compression(%q): use CompressionNone, CompressionS2 or CompressionZstd", fault.ErrConfig, c)
		}
		list = append(list, a)
	}
	return endOption{
		func(c *createConfig) { c.Compression, c.err = list, err },
		func(c *attachConfig) { c.Compression, c.err = list, err },
	}
}

// SenderStats counts what a sender has carried over a network. All of it is zero
// on a lane that crosses none.
type SenderStats struct {
	Batches    uint64 `json:"batches"`    // messages with frames
	Compressed uint64 `json:"compressed"` // those of them that were compressed
	Frames     uint64 `json:"frames"`     // values and soft errors in them
	Payload    uint64 `json:"payload"`    // bytes of the frames in them, with their headers
	Wire       uint64 `json:"wire"`       // bytes handed to the connection for them
}

func statsOf(o *stream.Outlet) SenderStats {
	t := o.Traffic()
	return SenderStats{Batches: t.Batches, Compressed: t.Compressed, Frames: t.Frames, Payload: t.Payload, Wire: t.Wire}
}
