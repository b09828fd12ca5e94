package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/failpoint"
	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// Outlet is the sending side of a session.
//
// One goroutine at a time, the owner, sends: on the fast path by P or C alone,
// else by the methods that say so. Control (messages of the receiver, the end
// of its node's socket, Close) sets err once, seals the ring's end, and the
// memory is released when the owner is seen to be in no call.
type Outlet struct {
	// P is the ring's producer; C is set instead in a shared ring.
	P *ring.Producer
	C *ring.Claimer

	reg    *Registry
	id     uint64
	h      handle.Handle
	peer   *control.Peer // nil: in this process
	local  *Inbound      // in this process: the other side
	lane   string
	sender uint32
	end    *lane.End // set once, under mu; read by the owner without it
	geo    ring.Geometry

	guard   guard
	sleeper outletSleeper

	mu       sync.Mutex
	err      error
	done     chan struct{}
	over     bool // Finalize, Detach or Close was called
	released atomic.Bool
	failed   atomic.Bool // err is set: for a look without the lock
	stop     func() bool
	orphan   bool          // Close has given a claim up that somebody may hold
	kept     bool          // and the memory with it: see free
	mine     atomic.Bool   // a call holds the reservation; see Mine
	unflush  func()        // ends the wait of an End that nobody will answer
	late     atomic.Uint32 // kind of the end that release is to write in a shared ring
}

// Lane is the name of the lane that the session uses.
func (o *Outlet) Lane() string { return o.lane }

// Sender is the id by which the receiver knows this session.
func (o *Outlet) Sender() uint32 { return o.sender }

// Handle is the stream's.
func (o *Outlet) Handle() handle.Handle { return o.h }

// Done is closed when nothing can be sent any more.
func (o *Outlet) Done() <-chan struct{} { return o.done }

// Err is why nothing can be sent any more, nil while it can. Any goroutine.
func (o *Outlet) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Failed tells whether Err is not nil, without a lock.
func (o *Outlet) Failed() bool { return o.failed.Load() }

// fail ends the session for the reason err, once. Any goroutine.
func (o *Outlet) fail(err error) {
	o.mu.Lock()
	if o.err != nil {
		o.mu.Unlock()
		return
	}
	if o.end != nil && o.end.Landed != nil {
		o.stopSending()
		if at, landed := o.P.Position(), o.end.Landed(); landed < at {
			err = fmt.Errorf("%w: %w", err, &LostError{Slots: at - landed})
		}
	}
	o.ends(fmt.Errorf("%w (stream %v)", err, o.h))
	o.unflush()
	o.mu.Unlock()
	o.retire(false)
}

// stopSending makes the owner's next call fail, and waits for the one that may be under
// way, so that the position counts all that was sent. It does not wait for the caller:
// a lane may fail within a call of the owner, behind its commit.
func (o *Outlet) stopSending() {
	o.seal()
	shm.Barrier()
	for range 1000 {
		if quiet, lent := o.quiesced(); quiet || lent {
			return
		}
		runtime.Gosched()
	}
}

// ends sets err. The lock is held. Whoever sees done closed sends nothing any more,
// so the ring's end is sealed before.
func (o *Outlet) ends(err error) {
	o.err = err
	o.failed.Store(true)
	if o.end != nil {
		o.seal()
	}
	close(o.done)
}

// retire seals the ring's end and releases the memory when the owner is in no
// call: at once, or at the end of the call.
func (o *Outlet) retire(clean bool) {
	if !o.connected() {
		return
	}
	o.seal()
	// An owner on its fast path has seen the seal after this, or is seen busy.
	shm.Barrier()
	idle := o.guard.close()
	// An owner that gives slots back has seen the guard closed after this, and
	// releases the memory itself, or is seen to have given them back.
	shm.Barrier()
	o.end.Parker.Interrupt()
	if idle {
		o.release(clean)
	}
}

// connected tells whether the session has an end yet.
func (o *Outlet) connected() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.end != nil
}

func (o *Outlet) seal() {
	if o.C != nil {
		o.C.Seal()
	} else {
		o.P.Seal()
	}
}

func (o *Outlet) quiesced() (quiet, lent bool) {
	if o.C != nil {
		return o.C.Quiesced(), o.C.Lent()
	}
	return o.P.Quiesced(), o.P.Lent()
}

// settle waits for a call on the fast path to end; it answers false when slots
// are lent, which only their holder can end.
func (o *Outlet) settle() bool {
	for {
		quiet, lent := o.quiesced()
		if quiet {
			return true
		}
		if lent {
			return false
		}
		runtime.Gosched()
	}
}

// release gives the memory back, once, unless slots are lent.
func (o *Outlet) release(clean bool) {
	if !o.settle() || !o.released.CompareAndSwap(false, true) {
		return
	}
	if o.stop != nil {
		o.stop()
	}
	o.reg.mu.Lock()
	delete(o.reg.outlets, o.id)
	o.reg.mu.Unlock()
	if o.C != nil { // if it has no end yet: then its record is free
		o.C.End(cmp.Or(ring.Kind(o.late.Load()), ring.Dropped))
	}
	o.mu.Lock()
	o.kept = o.orphan
	o.mu.Unlock()
	if !o.kept {
		o.end.Close(clean, o.position())
	}
}

// free releases the memory that was kept for the holder of a claim that Close has given
// up: the holder has tried to commit it, or nobody has the sender any more.
func (o *Outlet) free() {
	o.mu.Lock()
	kept := o.kept
	o.orphan, o.kept = false, false
	o.mu.Unlock()
	if kept {
		o.end.Close(false, 0)
	}
}

// Forget is Close, called when nobody has the sender any more.
func (o *Outlet) Forget() {
	o.Close()
	o.free()
}

func (o *Outlet) position() uint64 {
	if o.C != nil {
		return 0
	}
	return o.P.Position()
}

// exit leaves the guard, which is entered before whatever touches the ring on a
// slow path, and releases the memory if that waited for it.
func (o *Outlet) exit() {
	if o.guard.exit() {
		o.release(false)
	}
}

// Refused tells why a send was refused: fault.ErrFull, or what has ended the
// session. The owner calls it.
func (o *Outlet) Refused() error {
	defer o.exit()
	if !o.guard.enter() {
		return o.Err()
	}
	if err := o.look(); err != nil {
		return err
	}
	return fault.ErrFull
}

// Progress looks at what the receiver has to say without sending: nil, or what
// has ended the session. The owner calls it.
func (o *Outlet) Progress() error {
	defer o.exit()
	if !o.guard.enter() {
		return o.Err()
	}
	if o.C != nil {
		o.C.Look()
	} else {
		o.P.Look()
	}
	return o.look()
}

// look turns what the ring shows into the session's error.
func (o *Outlet) look() error {
	if o.failed.Load() {
		return o.Err()
	}
	var peer ring.Attention
	var err error
	if o.C != nil {
		peer, err = o.C.Peer(), o.C.Err()
	} else {
		peer, err = o.P.Peer(), o.P.Err()
	}
	switch {
	case peer.Cancelled():
		err = &fault.CancelError{Reason: o.end.Ring.Reason()}
	case peer.Closed():
		err = fmt.Errorf("%w: the receiver has closed the stream", fault.ErrPeerDead)
	case err == nil:
		return nil
	case errors.Is(err, ring.ErrCorrupt):
		err = fmt.Errorf("%w: %w", fault.ErrCorrupt, err)
	default: // sealed, behind what has ended the session since failed was read
		if err := o.Err(); err != nil {
			return err
		}
		return fmt.Errorf("%w: %v", fault.ErrClosed, o.h)
	}
	o.fail(err)
	return o.Err()
}

// Wait waits until there is room for n slots (in a shared ring: bytes), or the
// session has ended, or ctx. The owner calls it.
func (o *Outlet) Wait(ctx context.Context, n int) error {
	defer o.exit()
	if !o.guard.enter() {
		return o.Err()
	}
	o.sleeper = outletSleeper{o, n}
	return o.end.Parker.Wait(ctx, &o.sleeper)
}

// outletSleeper is what the parker sees of an outlet.
type outletSleeper struct {
	o *Outlet
	n int
}

// Ready tells whether sending may go on, or never will.
func (s *outletSleeper) Ready() bool {
	if s.o.failed.Load() {
		return true
	}
	if s.o.C != nil {
		return s.o.C.Ready(s.n)
	}
	return s.o.P.Ready(s.n)
}

// Arm tells the receiver how this side sleeps.
func (s *outletSleeper) Arm(mode shm.Mode) {
	if s.o.C != nil {
		s.o.C.Arm(mode)
	} else {
		s.o.P.Arm(mode)
	}
}

// Disarm tells the receiver that it is awake.
func (s *outletSleeper) Disarm() {
	if s.o.C == nil {
		s.o.P.Disarm()
	}
}

// SoftError sends an error that does not end the stream. The owner calls it.
func (o *Outlet) SoftError(ctx context.Context, text string) error {
	for {
		err := o.softError(text)
		if !errors.Is(err, ring.ErrFull) {
			return err
		}
		if err := o.Wait(ctx, o.textSlots(text)); err != nil {
			return err
		}
	}
}

func (o *Outlet) textSlots(text string) int {
	geo := o.end.Ring.Geometry()
	if o.C != nil {
		return min(len(text), geo.MaxFrame())
	}
	n := len(text)/max(geo.SlotSize-geo.HeaderSize()-1, 1) + 1
	return min(n, max(geo.Slots/8, 1))
}

func (o *Outlet) softError(text string) error {
	defer o.exit()
	if !o.guard.enter() {
		return o.Err()
	}
	var err error
	if o.C != nil {
		err = o.C.SoftError(text)
	} else {
		err = o.P.SoftError(text)
	}
	if err == nil || errors.Is(err, ring.ErrFull) {
		return err
	}
	if e := o.look(); e != nil {
		return e
	}
	return err
}

// End ends the session with kind. It answers when everything that was sent is
// where the death of this process cannot lose it. The owner calls it.
func (o *Outlet) End(ctx context.Context, kind ring.Kind) error {
	err := o.endInRing(ctx, kind)
	if err != nil {
		return err
	}
	o.mu.Lock()
	if o.err == nil {
		o.ends(fmt.Errorf("%w: %v: this sender has ended the session (%v)", fault.ErrClosed, o.h, kind))
	}
	o.mu.Unlock()
	failpoint.Hit("end/marked")
	err = o.say(ctx, kind, true, kind == ring.Detached)
	failpoint.Hit("end/said")
	o.retire(true)
	return err
}

func (o *Outlet) endInRing(ctx context.Context, kind ring.Kind) error {
	defer o.exit()
	if !o.guard.enter() {
		return o.Err()
	}
	if err := o.look(); err != nil {
		return err
	}
	if !o.mark(kind) {
		return fmt.Errorf("%w: %v: slots are reserved: commit them first", fault.ErrMisuse, o.h)
	}
	if o.end.Flush != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		o.mu.Lock()
		o.unflush = cancel
		if o.err != nil {
			cancel()
		}
		o.mu.Unlock()
		if err := o.end.Flush(ctx); err != nil {
			if errors.Is(err, control.ErrConnLost) {
				o.fail(fault.ErrPeerDead) // as the connection's end is about to: it says what is lost
			}
			if e := o.Err(); e != nil {
				return e
			}
			return fmt.Errorf("%v: not everything has arrived: %w", o.h, o.peerLost(err))
		}
	}
	return nil
}

// mark writes the end into the ring.
func (o *Outlet) mark(kind ring.Kind) bool {
	if o.C != nil {
		return o.C.End(kind)
	}
	return o.P.End(kind)
}

// say tells the receiver's control side about the end.
func (o *Outlet) say(ctx context.Context, kind ring.Kind, inRing, wait bool) error {
	m := &wire.End{Outlet: o.id, Kind: uint32(kind), InRing: inRing}
	if o.peer == nil {
		o.local.said(m)
		return nil
	}
	if !wait {
		o.reg.notify(o.peer, "stream_ended", m)
		return nil
	}
	b, err := proto.Marshal(m)
	if err == nil {
		_, err = o.peer.Call(ctx, "stream_end", control.Message{Payload: b})
	}
	return o.peerLost(err)
}

// peerLost gives the loss of the connection its name here: it is the peer's end.
func (o *Outlet) peerLost(err error) error {
	if errors.Is(err, control.ErrConnLost) {
		return fmt.Errorf("%w: %w (stream %v)", fault.ErrPeerDead, err, o.h)
	}
	return err
}

// Close gives the outlet up: if it was not ended, the receiver is told Dropped.
// Any goroutine may call it, any number of times.
func (o *Outlet) Close() error {
	o.mu.Lock()
	first := !o.over
	o.over = true
	live := o.err == nil
	if live {
		o.ends(fmt.Errorf("%w: %v", fault.ErrClosed, o.h))
	}
	o.unflush()
	o.mu.Unlock()
	if first && live {
		o.drop(ring.Dropped, true)
	}
	o.retire(false)
	return nil
}

// drop ends the session from any goroutine, behind what is committed. A claim in
// a shared ring is given up at once, so that it holds nobody up, if this side has
// asked for that: its holder must not write to it any more. Else the holder still
// writes, as a call of this side's does, and the end comes when it gives the claim
// back.
func (o *Outlet) drop(kind ring.Kind, asked bool) {
	ok := o.guard.enter()
	if ok {
		o.late.Store(uint32(kind))
		o.seal()
		shm.Barrier()
		switch {
		case o.settle():
			o.mark(kind)
		case o.C != nil && (!asked || o.mine.Load()):
		case o.C != nil:
			o.mu.Lock()
			o.orphan = true // the holder may be about to write
			o.mu.Unlock()
			o.C.Abandon()
			o.settle()
			o.mark(kind)
		default:
			o.P.Abort(kind, shm.Barrier)
		}
	}
	o.exit()
	_ = o.say(context.Background(), kind, ok, false)
}

// told takes a message of the receiver about the session.
func (o *Outlet) told(m *wire.Cancel) {
	switch {
	case m.Stop:
		o.mu.Lock()
		live := o.err == nil
		if live {
			o.ends(fmt.Errorf("%w (stream %v)", &fault.CancelError{Reason: m.Reason}, o.h))
		}
		o.mu.Unlock()
		if live && o.connected() {
			o.drop(ring.Cancelled, false)
			o.retire(false)
		}
	case m.Gone:
		o.fail(fmt.Errorf("%w: the receiver has closed the stream", fault.ErrPeerDead))
	default:
		o.fail(&fault.CancelError{Reason: m.Reason})
	}
}

// shutdown ends the outlet in order as far as ctx leaves time.
func (o *Outlet) shutdown(ctx context.Context) error {
	o.told(&wire.Cancel{Stop: true, Reason: "this node shuts down"})
	return nil
}

func (g *Registry) outlet(id uint64) *Outlet {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.outlets[id]
}

// notifyTimeout bounds how long a message to a peer that does not read may wait.
const notifyTimeout = 5 * time.Second

// notify sends a message that nobody answers. A peer that cannot be told is
// dead or will be found so; one that does not read is given up, or each message to
// it would take as long again.
func (g *Registry) notify(peer *control.Peer, name string, m proto.Message) {
	b, err := proto.Marshal(m)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
		defer cancel()
		err = peer.Send(ctx, name, control.Message{Payload: b})
	}
	if err != nil {
		g.log.Debug("message not sent", "message", name, "worker", peer.WorkerID(), "error", err)
		if errors.Is(err, control.ErrDeadline) {
			peer.Close()
		}
	}
}
