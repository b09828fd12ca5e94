package compress

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// maxZstd bounds what a decoder believes of a batch at all; the caller's limit
// is below it.
const maxZstd = 1 << 30

// zstdDecoders are shared by all sessions, as zstdEncoders are.
var zstdDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxZstd), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

// Decode appends what a batch carries to dst. It believes nothing: an algorithm
// that is not allowed, more than limit bytes, a length that is not what then
// comes, and bytes too few or too many are ErrCorrupt, and no memory is taken
// for more than limit. A batch that is not encoded is answered as it lies in b,
// without a copy. It allocates nothing when dst has room. It may be called
// concurrently.
func Decode(dst, b []byte, allowed Set, limit int) ([]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: no byte that says how it is encoded", ErrCorrupt)
	}
	a, body := Algorithm(b[0]), b[1:]
	if !allowed.Has(a) {
		return nil, fmt.Errorf("%w: encoded by %v, which was not agreed to", ErrCorrupt, a)
	}
	n, err := decodedLen(a, body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %v: %w", ErrCorrupt, a, err)
	case n > uint64(min(limit, maxZstd)):
		return nil, fmt.Errorf("%w: %v: says that it carries %d bytes, at most %d can come", ErrCorrupt, a, n, limit)
	case a == None:
		return body, nil
	}
	at := len(dst)
	dst = slices.Grow(dst, int(n))
	out := dst[at : at : at+int(n)] // neither can write beyond it
	switch a {
	case S2:
		out, err = s2.Decode(out[:n], body)
	case Zstd:
		d := zstdDecoders.Get().(*zstd.Decoder)
		out, err = d.DecodeAll(body, out)
		zstdDecoders.Put(d)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %v: %w", ErrCorrupt, a, err)
	case len(out) != int(n):
		return nil, fmt.Errorf("%w: %v: carries %d bytes, said %d", ErrCorrupt, a, len(out), n)
	}
	return dst[:at+int(n)], nil
}

// decodedLen is how many bytes a batch says that it carries.
func decodedLen(a Algorithm, body []byte) (uint64, error) {
	switch a {
	case S2:
		n, err := s2.DecodedLen(body)
		return uint64(n), err
	case Zstd:
		var h zstd.Header
		if err := h.Decode(body); err != nil {
			return 0, err
		}
		if !h.SingleSegment { // Append makes no other; a skippable frame is none either
			return 0, errors.New("not one segment with its length")
		}
		return h.FrameContentSize, nil
	}
	return uint64(len(body)), nil
}
