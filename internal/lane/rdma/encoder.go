package rdma

import (
	"sync"

	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/ring"
)

// encoder makes ranges smaller before they are written. An encoded range is written
// to where the range's slots are, with a header that tells the receiver's consumer
// to expand it there (ring.EncodedHeader): so it needs no other memory there, and
// credits are what they are without. What does not shrink by a sixteenth goes as it is,
// straight from the mirror.
//
// What is written lies in the stage, in the sender's region behind its words, until
// its request is done; it is used as a ring of bytes, in the order of requests. When
// it is full the pump is stalled, as it is when the send queue is full: each
// announcement is signalled, so a completion comes.
//
// It encodes without the conn's lock, which the shard's goroutine wants for the sake of
// all sessions. So only a worker takes ranges, of which there is one at a time.
type encoder struct {
	algorithm compress.Algorithm
	stage     int // bytes, a power of two

	// Guarded by conn.mu, but that buf is the worker's while it encodes.
	head, tail uint64 // bytes of the stage that were used, and are free again
	ends       [2 * sendDepth]uint64
	pending    encodedRange // taken from the mirror, and not yet in the stage
}

// encodedRange is a range of n bytes from off on in the segment.
type encodedRange struct {
	off, n int
	buf    *[]byte // the encoded bytes with their header; nil: there is no range
}

const (
	// leastEncoded is up to how many bytes a range is not worth a try.
	leastEncoded = 128
	// leastSaved is which part of a range must be saved: as it is it costs neither
	// side a copy.
	leastSaved = 16
	// leastStage and mostStage bound the stage; a range that is larger than the
	// stage goes as it is.
	leastStage = 4 * chunk
	mostStage  = 16 * chunk
)

// newEncoder is nil for None.
func newEncoder(a compress.Algorithm, g ring.Geometry) *encoder {
	if a == compress.None {
		return nil
	}
	e := &encoder{algorithm: a, stage: leastStage}
	for e.stage < mostStage && e.stage < chunk+g.MaxFrame() {
		e.stage *= 2
	}
	return e
}

// size is how many bytes the stage takes.
func (e *encoder) size() int {
	if e == nil {
		return 0
	}
	return e.stage
}

// waits tells whether a range waits for room in the stage.
func (e *encoder) waits() bool { return e != nil && e.pending.buf != nil }

// until notes that what is in the stage is free when the request with this number is
// done.
func (e *encoder) until(seq uint64) { e.ends[seq%uint64(len(e.ends))] = e.head }

// finished frees what the requests up to the one with this number have sent.
func (e *encoder) finished(seq uint64) {
	e.tail = max(e.tail, e.ends[seq%uint64(len(e.ends))]) // not every request has one
	if e.tail == e.head {
		n := uint64(e.stage)
		e.head = (e.head + n - 1) / n * n
		e.tail = e.head
	}
}

// room finds a place for n bytes.
func (e *encoder) room(n int) (at int, ok bool) {
	size := uint64(e.stage)
	from := e.head
	if from%size+uint64(n) > size {
		from += size - from%size
	}
	if from+uint64(n)-e.tail > size {
		return 0, false
	}
	e.head = from + uint64(n)
	return int(from % size), true
}

// buffers hold ranges while they are encoded, or decoded, by whichever session.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// encoded adds the next range of committed frames to the batch. The answer is false
// when nothing is to be announced now: the range waits for the stage, or the session
// has ended meanwhile. The lock is held, but not while the range is encoded.
func (p *pump) encoded() (some, ok bool) {
	e := p.encoder
	if e.pending.buf == nil {
		from := p.x.Exported()
		off, n, some := p.x.Span(chunk)
		if !some {
			return false, true
		}
		if n <= leastEncoded || n > e.stage {
			p.place(off, off, n, n)
			return true, true
		}
		buf := buffers.Get().(*[]byte)
		p.mu.Unlock()
		smaller := e.encode(buf, p.region.Bytes()[off:off+n])
		p.mu.Lock()
		switch {
		case p.dead:
			buffers.Put(buf)
			return false, false
		case !smaller:
			buffers.Put(buf)
			p.place(off, off, n, n)
			return true, true
		}
		p.x.PutEncodedHeader(*buf, from, len(*buf)-ring.EncodedHeader)
		e.pending = encodedRange{off, n, buf}
	}
	r := e.pending
	size := len(*r.buf)
	at, ok := e.room(size)
	if !ok {
		return false, false
	}
	at += p.words + pageSize
	copy(p.region.Bytes()[at:], *r.buf)
	buffers.Put(r.buf)
	e.pending = encodedRange{}
	e.until(p.place(r.off, at, r.n, size))
	p.sent.Compressed++
	return true, true
}

// encode makes *buf a header and the encoded bytes of src, and tells whether that is
// enough smaller than src to be worth it. It encodes from a copy: a receiver that says
// that it has read what it has not could have the producer change src meanwhile.
func (e *encoder) encode(buf *[]byte, src []byte) (smaller bool) {
	c := buffers.Get().(*[]byte)
	defer buffers.Put(c)
	*c = append((*c)[:0], src...)
	var header [ring.EncodedHeader]byte
	b, used := compress.Append(append((*buf)[:0], header[:]...), e.algorithm, *c)
	*buf = b
	return used != compress.None && len(b) <= len(src)-len(src)/leastSaved
}

// expander decodes what an encoder of the other side has made, in place, as
// ring.Remote.Expand says; nil when nothing may come encoded. It decodes from a copy,
// which the peer cannot change meanwhile.
func expander(takes compress.Set) func(slots []byte, n int) error {
	if takes == 0 {
		return nil
	}
	return func(slots []byte, n int) error {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		*buf = append((*buf)[:0], slots[ring.EncodedHeader:ring.EncodedHeader+n]...)
		if (*buf)[0] == byte(compress.None) {
			return compress.ErrCorrupt
		}
		_, err := compress.Decode(slots[:0:len(slots)], *buf, takes, len(slots))
		return err
	}
}
