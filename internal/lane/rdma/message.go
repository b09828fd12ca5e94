package rdma

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/novastream/novastream/internal/compress"
)

// The lane's messages, by Nova RPC. Both sides are of one version; another is
// refused.
//
//	offer          version, provider, compressors    a compress.Set: what the sender's build can do
//	reply          version, place, compressors       of the receiver's region; what it takes
//	rdma_hello     version, provider, address        answered by an address
//	rdma_connect   version, outlet, place            of the sender's page of credits
//	rdma_failed    version, outlet, to, text         to: 0 the receiver, 1 the sender
//
// A place is a queue pair's address, and a region's address and key.
const version = 2

var errMalformed = errors.New("malformed message")

// place is where a side's device can be reached and what it may be written to.
type place struct {
	address []byte
	remote  uint64
	rkey    uint32
}

// writer appends fields.
type writer []byte

func newWriter() writer { return writer{version} }

func (w writer) bytes(b []byte) writer {
	return append(binary.AppendUvarint(w, uint64(len(b))), b...)
}

func (w writer) uint(v uint64) writer { return binary.AppendUvarint(w, v) }

func (w writer) place(p place) writer {
	return w.bytes(p.address).uint(p.remote).uint(uint64(p.rkey))
}

// reader takes fields; the first that is not there makes all that follow empty,
// and end tells.
type reader struct {
	b   []byte
	bad bool
	ver byte
}

func newReader(b []byte) *reader {
	r := &reader{b: b}
	if len(b) == 0 {
		r.bad = true
		return r
	}
	r.ver, r.b = b[0], b[1:]
	r.bad = r.ver != version
	return r
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) || r.bad {
		r.bad = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) place() place {
	p := place{address: r.bytes(), remote: r.uint()}
	key := r.uint()
	p.rkey = uint32(key)
	r.bad = r.bad || key>>32 != 0 || p.remote%8 != 0
	return p
}

func (r *reader) compressors() compress.Set {
	v := r.uint()
	r.bad = r.bad || v > 0xff
	return compress.Set(v)
}

func (r *reader) end(what string) error {
	switch {
	case r.ver != 0 && r.ver != version:
		return fmt.Errorf("%w: %s: version %d, this build speaks %d: update the older side", errMalformed, what, r.ver, version)
	case r.bad || len(r.b) != 0:
		return fmt.Errorf("%w: %s", errMalformed, what)
	}
	return nil
}
