package compress

import (
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// zstdEncoders are shared by all sessions, since each takes about a megabyte and
// is needed during a batch alone.
var zstdEncoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}}

// Append appends the batch that carries src, and answers how it is encoded: by
// a, or as it is when that would make it no smaller. It allocates nothing when
// dst has room for MaxLen(len(src)) bytes more. The memory of src and dst must
// not overlap. It may be called concurrently.
func Append(dst []byte, a Algorithm, src []byte) ([]byte, Algorithm) {
	at := len(dst)
	dst = append(slices.Grow(dst, MaxLen(len(src))), byte(a))
	body := dst[at+1:]
	switch a {
	case S2:
		body = s2.Encode(body[:cap(body)], src)
	case Zstd:
		e := zstdEncoders.Get().(*zstd.Encoder)
		body = e.EncodeAll(src, body)
		zstdEncoders.Put(e)
	default:
		a = None
	}
	if a == None || len(body) >= len(src) {
		dst[at] = byte(None)
		return append(dst, src...), None
	}
	return append(dst, body...), a // where it is already, since there was room
}

// MaxLen is what Append may need for a batch that carries n bytes.
func MaxLen(n int) int { return 1 + max(s2.MaxEncodedLen(n), n+n>>7+64) }
