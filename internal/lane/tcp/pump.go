package tcp

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"sync"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// batch is how many bytes of frames go into one message at most, but for a
// frame that is larger.
const batch = 128 << 10

// pump carries what is committed in the mirror to the receiver. Its goroutine
// is the mirror's consumer; credits are left for it by the connection's reader.
type pump struct {
	lane *Lane
	key  key
	peer *control.Peer
	fail func(error)

	x         *ring.Exporter
	parker    *shm.Parker
	bell      shm.Bell           // rung by the producer
	roomBell  shm.Bell           // rung for a producer that waits for room
	coded     bool               // messages say how they are encoded
	algorithm compress.Algorithm // and how that is tried
	sent      traffic
	ctx       context.Context
	stop      context.CancelFunc

	mu      sync.Mutex
	credit  uint64 // consumer's position, as the receiver said last
	fresh   bool   // credit is news
	arrived bool   // the end has arrived at the receiver
	landed  uint64 // position behind the last frame that has arrived
	dead    bool
	changed chan struct{} // closed and made anew when the above change
}

func newPump(l *Lane, req lane.Request, r *ring.Ring, s ring.Session) *pump {
	p := &pump{
		lane: l, key: key{req.Peer, req.Outlet}, peer: req.Peer, fail: req.Fail,
		bell: shm.NewLocalBell(), roomBell: shm.NewLocalBell(),
		credit: s.Start, landed: s.Start, changed: make(chan struct{}),
	}
	p.parker = shm.NewParker(shm.Park, nil, p.bell)
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.x = r.Exporter(s, func(a ring.Attention) {
		if a.Mode() != 0 {
			p.roomBell.Ring()
		}
	})
	return p
}

// wake is what the mirror's producer calls when it finds the pump asleep.
func (p *pump) wake(a ring.Attention) {
	if a.Mode() != 0 {
		p.bell.Ring()
	}
}

// run carries frames until the session's end has been sent and the connection
// has nothing more to say, or the end is released.
func (p *pump) run() {
	defer p.finish()
	stop := p.peer.OnClose(func(error) { p.stop() })
	defer stop()
	buf := make([]byte, 0, dataHeader+batch/4)
	var coded []byte
	for {
		if err := p.takeCredit(); err != nil {
			p.fail(err)
			return
		}
		buf = binary.LittleEndian.AppendUint64(buf[:0], p.key.outlet)
		var ended bool
		buf, ended = p.x.Append(buf, dataHeader+batch)
		if err := p.x.Err(); err != nil {
			p.fail(err)
			return
		}
		if len(buf) > dataHeader {
			msg, used := buf, compress.None
			if p.coded {
				coded, used = compress.Append(append(coded[:0], buf[:dataHeader]...), p.algorithm, buf[dataHeader:])
				msg = coded
			}
			p.sent.add(p.x.Frames(), len(buf)-dataHeader, len(msg), used)
			if err := p.peer.SendBulk(p.ctx, "stream_data", msg); err != nil {
				if p.ctx.Err() == nil && !errors.Is(err, control.ErrConnLost) {
					p.fail(err)
				}
				return
			}
			if !ended {
				continue
			}
		}
		if err := p.parker.Wait(p.ctx, p); err != nil {
			return
		}
	}
}

func (p *pump) finish() {
	p.stop()
	p.lane.mu.Lock()
	delete(p.lane.pumps, p.key)
	p.lane.mu.Unlock()
	p.mu.Lock()
	p.dead = true
	p.tell()
	p.mu.Unlock()
}

// tell wakes those that wait in flush. The lock is held.
func (p *pump) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// takeCredit gives the slots back that the receiver's consumer has passed.
func (p *pump) takeCredit() error {
	p.mu.Lock()
	pos, fresh := p.credit, p.fresh
	p.fresh = false
	p.mu.Unlock()
	if !fresh {
		return nil
	}
	return p.x.Credit(pos)
}

// credited takes what the receiver says; an arrived of all ones is the end.
func (p *pump) credited(pos, arrived uint64) {
	p.mu.Lock()
	p.credit, p.fresh = pos, true
	if arrived == ^uint64(0) {
		p.arrived = true
	} else {
		p.landed = arrived
	}
	p.tell()
	p.mu.Unlock()
	p.parker.Interrupt()
}

// known is the position up to which the receiver has said that frames arrived,
// and beyond every position when the end has.
func (p *pump) known() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.arrived {
		return math.MaxUint64
	}
	return p.landed
}

// flush waits until the session's end, and with it everything before it, is in
// the receiver's ring.
func (p *pump) flush(ctx context.Context) error {
	for {
		p.mu.Lock()
		arrived, dead, changed := p.arrived, p.dead, p.changed
		p.mu.Unlock()
		switch {
		case arrived:
			return nil
		case dead:
			return control.ErrConnLost
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release ends the pump: at once when nothing is left to carry, else when the
// end that is in the mirror has been carried.
func (p *pump) release() {
	p.mu.Lock()
	arrived, dead := p.arrived, p.dead
	p.mu.Unlock()
	if arrived || dead || !p.x.HasEnd() {
		p.stop()
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(p.ctx, lingerTime)
		defer cancel()
		_ = p.flush(ctx)
		p.stop()
	}()
}

// Ready tells whether the pump has something to do.
func (p *pump) Ready() bool {
	p.mu.Lock()
	fresh := p.fresh
	p.mu.Unlock()
	return fresh || p.x.Pending()
}

// Arm tells the mirror's producer that the pump sleeps.
func (p *pump) Arm(mode shm.Mode) { p.x.Arm(mode) }

// Disarm tells it that the pump is awake.
func (p *pump) Disarm() { p.x.Disarm() }
