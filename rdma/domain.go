package rdma

// Domain is a protection domain. Its methods may be called concurrently.
type Domain interface {
	// NewRegion allocates zeroed memory that begins on a page, pins and registers
	// it. ErrLimit names the limit that is too low (memlock).
	NewRegion(size int, access Access) (Region, error)
	// NewCQ makes a completion queue with room for depth completions that have not
	// been polled. Its users see to it that there are never more: see ErrOverflow.
	NewCQ(depth int) (CQ, error)
	// NewQP makes a queue pair, in state Init.
	NewQP(opt QPOptions) (QP, error)
	// Close closes everything made from the domain, and then the domain.
	Close() error
}

// Access is what a region's key permits a peer; its owner may do all.
type Access uint8

// The accesses, to be combined. A region with none serves as the local side of
// requests only.
const (
	RemoteWrite Access = 1 << iota
	RemoteRead
)

// Region is registered memory. Its methods may be called concurrently; the memory
// is the business of its users.
type Region interface {
	// Bytes is the memory, outside Go's heap for real devices, valid until Close.
	Bytes() []byte
	// Addr is what the first byte is called in Segment.Addr and SendWR.Remote. It
	// need not be an address of this process.
	Addr() uint64
	// LKey names the region in requests of its own domain's queue pairs.
	LKey() uint32
	// RKey is what a peer needs, beside Addr, to reach it.
	RKey() uint32
	// Close deregisters the region and then frees its memory: once it has
	// returned, no write with the old key lands anywhere, and a peer that tries
	// gets RemoteAccess. Requests that still name the region fail.
	Close() error
}

// SegmentOf is the part of a region that begins at off and has n bytes. It is not
// checked against the region's size: a provider does that.
func SegmentOf(r Region, off, n int) Segment {
	return Segment{Addr: r.Addr() + uint64(off), Length: uint32(n), LKey: r.LKey()}
}
