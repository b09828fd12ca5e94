// Package lane says what the streaming layer needs of a way to carry frames,
// and nothing about any of them: each lane is a folder of its own beside this
// file, and no lane knows another.
//
// A lane gives both sides, once, at attach, an End: a concrete end of a ring
// and the hooks of the slow path. No frame passes through an interface.
package lane

import (
	"context"
	"errors"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// ErrAnswer is a reply to an attach that no honest receiver makes.
var ErrAnswer = errors.New("lane: bad answer of the receiver")

// Lane is one way to carry frames. Its methods may be called concurrently.
type Lane interface {
	// Name is what the lane is called in offers, options and logs.
	Name() string
	// Offer is asked on the sender's side: what it can do towards a peer (nil:
	// this process itself), as data for Accept. An error says why it can do
	// nothing.
	Offer(peer *control.Peer) ([]byte, error)
	// Accept is asked on the receiver's side, with the offer of the sender. It
	// makes the receiving end and what the sender needs to make its own.
	// Segments or descriptors that it fails to use are released.
	Accept(req Request) (*End, Reply, error)
	// Connect makes the sending end out of the receiver's reply. It owns the
	// reply's descriptors in every case.
	Connect(req Request, reply Reply) (*End, error)
	// Close releases what the lane keeps. Ends are released on their own.
	Close() error
}

// Refuser is a lane that frames reach by other ways than memory, and that counts
// those that it refuses.
type Refuser interface {
	// Refused is how many messages of sessions that are not, or no more, came.
	Refused() uint64
}

// Sharer is a lane whose memory several senders can share.
type Sharer interface {
	// Share makes a ring with several producers, to which Join adds senders.
	// Of the request only Geometry, Wait and HugePages are filled in.
	Share(req Request) (Shared, error)
}

// Shared is a ring that several senders share.
type Shared interface {
	// End is the receiving end, for a collector.
	End() *End
	// Join makes what the sender with this record needs to make its end; its
	// peer is nil when it is in this process.
	Join(req Request, record int, generation uint32) (Reply, error)
	// Leave forgets the sender with this record.
	Leave(record int)
}

// Request is one attach.
type Request struct {
	// Peer is the other side's node, nil when it is this process.
	Peer *control.Peer
	// Outlet is the sender's name for the session, unique in the sender's node.
	Outlet uint64
	// Geometry is the receiver's, known to Accept and Connect.
	Geometry ring.Geometry
	// Wait is how this side waits.
	Wait shm.Strategy
	// HugePages asks Accept for memory in huge pages, where the lane has any.
	HugePages bool
	// Offer is the sender's offer, for Accept.
	Offer []byte
	// Compression is what this side agrees to, where the lane crosses a network:
	// Accept takes any of it, Connect uses the first that the receiver takes.
	Compression []compress.Algorithm
	// Fail is told once when the lane can carry nothing any more. It must not
	// block, and may be called from any goroutine.
	Fail func(error)
}

// Reply is what Accept makes for Connect.
type Reply struct {
	Session    ring.Session
	Data       []byte
	FDs        []int // owned by whoever holds the reply
	Local      *InProcess
	Record     int // in a ring with several producers
	Generation uint32
}

// InProcess is what Connect needs within one process.
type InProcess struct {
	Ring         *ring.Ring
	ConsumerWord *uint32 // nil: the consumer never sleeps on a futex
	ConsumerBell shm.Bell
	ProducerBell shm.Bell
	Bytes        int
	Release      func()
}

// End is one side's end of one session's ring. Whoever uses it makes the
// producer, claimer, consumer or collector, and must not touch Ring after
// Close.
type End struct {
	Ring    *ring.Ring
	Session ring.Session
	Record  int
	Gen     uint32

	// Wake wakes the other side, which sleeps as its attention word says. It is
	// what producers and consumers are to be notified with.
	Wake func(ring.Attention)
	// Parker is where this side waits; one goroutine at a time.
	Parker *shm.Parker
	// Bell is what the other side rings to wake Parker by Mode Doorbell.
	Bell shm.Bell
	// Flush waits until everything committed is where the death of this process
	// cannot lose it, or ctx ends. Nil when that is at once.
	Flush func(ctx context.Context) error
	// Landed is the position up to which frames are known to have arrived in the
	// receiver's ring. Nil when they are there as soon as they are committed.
	Landed func() uint64
	// Halt, at the receiving end, has nothing more arrive: what had arrived is in
	// the ring when it returns, and the sender knows of nothing else that it had.
	// It is called before the ring's end is told that the ring does not show. Nil
	// where the death of the sender or of its connection does as much.
	Halt func()
	// Release is the lane's part of Close.
	Release func(clean bool, next uint64)
	// Bytes is the size of the segment, HugeBytes how much of it is known to be in
	// huge pages.
	Bytes, HugeBytes int
	// Traffic tells what the sender's end has carried over a network, and may be
	// called at any time, also after Close. Nil when it crosses none.
	Traffic func() Traffic
}

// Traffic counts what a sender's end has carried over a network.
type Traffic struct {
	// Compression is how its batches are encoded, those that get smaller.
	Compression compress.Algorithm
	// Batches were handed to the connection, in Wire bytes for the Payload bytes
	// of Frames, headers included; Compressed of them were encoded.
	Batches, Compressed   uint64
	Frames, Payload, Wire uint64
}

// Close gives the memory back, once: nobody may touch Ring any more. Clean says
// that the session ended with both sides agreeing on the position next at which
// it ended, so that the memory may serve another session.
func (e *End) Close(clean bool, next uint64) {
	e.Parker.Close() // its wake word may lie in the memory
	e.Release(clean, next)
}

// CloseFDs closes descriptors that nobody took.
func CloseFDs(fds []int) { closeFDs(fds) }
