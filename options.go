package novastream

import (
	"log/slog"
	"time"

	"github.com/novastream/novastream/internal/stream"
	"github.com/novastream/novastream/shm"
)

// Lane is a way for frames to reach the receiver's ring.
type Lane string

// The lanes. The best one that both sides have is used.
const (
	LaneLocal Lane = "local" // one process: a ring on the heap
	LaneShm   Lane = "shm"   // one host: a ring in shared memory
	LaneRDMA  Lane = "rdma"  // two hosts: written by one's device into the other's registered memory
	LaneTCP   Lane = "tcp"   // a mirror of the ring, carried over a connection
)

// Strategy is how a side waits; see the constants.
type Strategy = shm.Strategy

// How a side waits.
const (
	// Hybrid spins as long as that has lately paid, then parks. The default.
	Hybrid = shm.Hybrid
	// Spin never parks: the lowest latency, and a processor for it alone.
	Spin = shm.Spin
	// Park parks at once.
	Park = shm.Park
)

// Defaults of a stream.
const (
	// DefaultAttachTimeout is how long a stream waits for a sender.
	DefaultAttachTimeout = time.Minute
	// DefaultMessageTimeout is how long a sender's node may be silent.
	DefaultMessageTimeout = 10 * time.Second
	// DefaultRingBytes is about how large a ring of values is: it fits an L2,
	// which serves latency; see docs/tuning.md.
	DefaultRingBytes = 256 << 10
	// DefaultBytesRing is the size of a ring of frames that vary.
	DefaultBytesRing = 1 << 20
	// DefaultBytesSlot is the slot size of a ring of frames that vary.
	DefaultBytesSlot = 64
	// DefaultMaxMemory is what all the rings of a node may take.
	DefaultMaxMemory = 4 << 30
)

// Option is an option of New.
type Option func(*config)

type config struct {
	maxStreams int
	maxMemory  int64
	log        *slog.Logger
	rdma       *rdmaConfig
}

// MaxStreams bounds how many streams may be open for receiving at once; the
// default and the most is 65,536.
func MaxStreams(n int) Option { return func(c *config) { c.maxStreams = n } }

// MaxMemory bounds the bytes of all rings that this node holds for receiving.
// An attach beyond it is refused with ErrLimit.
func MaxMemory(bytes int64) Option { return func(c *config) { c.maxMemory = bytes } }

// WithLogger sets where the library logs; the default is the node's logger.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// RDMA chooses by whose devices the lane rdma works: a provider by its name, and
// one of its devices, "" for the first that can be used. "verbs" is libibverbs, in
// builds with the tag verbs; "soft" needs no device, is slower than the lane tcp where
// that serves too, and is used only when it is asked for here. Other names are those
// of providers that a package has registered (rdma.Register). ErrConfig for a name
// that there is not; New fails with ErrLaneUnavailable when the device cannot be had.
//
// Without this option verbs is used, if it is built in and there is a device with an
// active port.
func RDMA(provider, device string) Option {
	return func(c *config) { c.rdma = &rdmaConfig{provider, device} }
}

type rdmaConfig struct{ provider, device string }

// CreateOption is an option of Create and CreateBytes.
type CreateOption interface{ create(*createConfig) }

// AttachOption is an option of Attach and AttachBytes.
type AttachOption interface{ attach(*attachConfig) }

// EndOption is an option of either end, and each end sets its own.
type EndOption interface {
	CreateOption
	AttachOption
}

type createConfig struct {
	stream.CreateOptions
	capacity, slotSize int
	capacitySet        bool
	codec              any
	err                error // of an option
}

type attachConfig struct {
	stream.AttachOptions
	codec any
	err   error // of an option
}

type createOption func(*createConfig)

func (f createOption) create(c *createConfig) { f(c) }

// Capacity is how many slots the ring has: how many frames of one slot may be
// in flight. A power of two. The default makes a ring of about DefaultRingBytes.
func Capacity(slots int) CreateOption {
	return createOption(func(c *createConfig) { c.capacity, c.capacitySet = slots, true })
}

// SlotSize is the bytes of a slot, header included: a power of two from 16. The
// default is the smallest that holds the value, or DefaultBytesSlot for frames
// that vary.
func SlotSize(bytes int) CreateOption {
	return createOption(func(c *createConfig) { c.slotSize = bytes })
}

// Shared lets up to maxSenders senders attach at the same time, each with a
// ring of its own. The default is an exclusive stream: one at a time.
func Shared(maxSenders int) CreateOption {
	return createOption(func(c *createConfig) { c.CreateOptions.Shared, c.MaxSenders = true, maxSenders })
}

// OneRing lets the senders of a shared stream share one ring, where their lane
// permits: less memory, one order for all, and one sender can harm the others.
func OneRing() CreateOption {
	return createOption(func(c *createConfig) { c.CreateOptions.OneRing = true })
}

// AttachTimeout is how long the stream may be without a sender before it ends
// with KindTimeout: from its creation, and again after each detach. 0 is for
// ever.
func AttachTimeout(d time.Duration) CreateOption {
	return createOption(func(c *createConfig) { c.AttachTimeout = d })
}

// MessageTimeout is how long nothing may be heard of the sender's node before
// the sender counts as gone, with KindTimeout. A sender that has nothing to say
// is heard all the same, and so is one whose ring is full. 0 is for ever; death
// is noticed at once in any case.
func MessageTimeout(d time.Duration) CreateOption {
	return createOption(func(c *createConfig) { c.MessageTimeout = d })
}

// HugePages asks for rings in huge pages where their lane is shm, which spares large
// rings some misses of the TLB. The system may give none, or some: Stats.HugeBytes
// tells what was obtained, and a log line how to get them when none were. An attach
// takes longer: such segments are not prepared ahead, though they are used again.
func HugePages() CreateOption {
	return createOption(func(c *createConfig) { c.CreateOptions.HugePages = true })
}

type endOption struct {
	c func(*createConfig)
	a func(*attachConfig)
}

func (o endOption) create(c *createConfig) { o.c(c) }
func (o endOption) attach(c *attachConfig) { o.a(c) }

// Wait sets how this end waits.
func Wait(s Strategy) EndOption {
	return endOption{func(c *createConfig) { c.Wait = s }, func(c *attachConfig) { c.Wait = s }}
}

// Lanes names the lanes that may be used; others are not, and if none of them
// can be had the attach fails with ErrLaneUnavailable. The default is any.
func Lanes(lanes ...Lane) EndOption {
	names := make([]string, len(lanes))
	for i, l := range lanes {
		names[i] = string(l)
	}
	return endOption{func(c *createConfig) { c.Lanes = names }, func(c *attachConfig) { c.Lanes = names }}
}

// WithCodec sets how values become bytes and back; both ends need codecs of the
// same name. The default suits the type; see Codec.
func WithCodec[T any](codec Codec[T]) EndOption {
	return endOption{func(c *createConfig) { c.codec = codec }, func(c *attachConfig) { c.codec = codec }}
}
