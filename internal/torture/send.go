package torture

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/novastream/novastream"
)

// round is one round of a sender: it attaches, sends and ends, and keeps its book.
type round struct {
	l      *Lane
	p      *Plan
	s      *StreamPlan
	x      *SenderPlan
	h      novastream.Handle
	rec    record
	id     uint64
	r      *rand.Rand
	last   bool
	before bool // the round before this one has failed
}

// send runs the senders of a host, and returns when all of them are over.
func (h *host) send(ctx context.Context, j *job) {
	var wg sync.WaitGroup
	for i := range j.Plan.Streams {
		s := &j.Plan.Streams[i]
		for k := range s.Senders {
			if x := &s.Senders[k]; x.Host == j.Me {
				wg.Go(func() { h.sender(ctx, j, s, x, j.Handles[i]) })
			}
		}
	}
	wg.Wait()
}

func (h *host) sender(ctx context.Context, j *job, s *StreamPlan, x *SenderPlan, to novastream.Handle) {
	failed := false
	for k := range x.Rounds {
		n := x.Record + k
		r := round{
			l: h.lane, p: &j.Plan, s: s, x: x, h: to, rec: h.ledger.region(j.Region).sender(n), id: ident(j.Plan.Episode, n),
			r: rand.New(rand.NewPCG(j.Plan.Seed, uint64(n))), last: k == x.Rounds-1, before: failed,
		}
		if err := h.round(ctx, &r); err != nil {
			r.rec.note(err.Error())
			r.rec.set(sErrorAt, now())
			r.rec.set(sError, uint64(verdictOf(err)))
			failed = true
		}
		r.rec.set(sDone, 1)
	}
}

func (h *host) round(ctx context.Context, r *round) error {
	o, err := h.attach(ctx, r)
	if err != nil {
		return err
	}
	r.rec.set(sAttachAt, now())
	r.rec.set(sID, uint64(o.ID()))
	defer o.Close()
	if r.last && r.x.End == Abandon {
		done := make(chan struct{})
		t := time.AfterFunc(r.x.After, func() {
			defer close(done)
			r.rec.set(sEnd, uint64(Abandon))
			o.Close()
			r.rec.set(sEnded, 1)
		})
		defer func() {
			if !t.Stop() {
				<-done
			}
		}()
	}
	if err := r.frames(ctx, o); err != nil {
		r.lost(err)
		return err
	}
	return r.end(ctx, o)
}

// attach tries again while the receiver has not noticed the end of the round before.
func (h *host) attach(ctx context.Context, r *round) (out, error) {
	for try := 0; ; try++ {
		o, err := newOut(ctx, h, r)
		v := verdictOf(err)
		if err == nil || !r.before || try == 400 || !v.is(novastream.ErrAlreadyAttached, novastream.ErrTooManySenders) {
			return o, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// fewFrames is how many a round sends at most that is not its sender's last.
const fewFrames = 100

// frames sends what the plan says.
func (r *round) frames(ctx context.Context, o out) error {
	count := r.x.Frames
	if !r.last {
		count = min(count, fewFrames)
	}
	for n := uint64(0); n < count; {
		k := min(uint64(r.x.Burst), count-n)
		if err := o.put(ctx, n, n+k); err != nil {
			return err
		}
		n += k
		if r.x.Pause > 50*time.Microsecond && n < count {
			time.Sleep(r.x.Pause)
		}
	}
	return nil
}

func (r *round) end(ctx context.Context, o out) error {
	end := Detach
	if r.last {
		end = r.x.End
	}
	r.rec.set(sEnd, uint64(end))
	var err error
	switch end {
	case Finalize:
		if r.p.Sabotage == SabotageEnd {
			err = o.Close()
			break
		}
		err = o.Finalize(ctx)
	case Detach:
		err = o.Detach(ctx)
	default:
		err = o.Close()
	}
	if err != nil {
		r.lost(err)
		return err
	}
	r.counted(o.Stats())
	r.rec.set(sEnded, 1)
	return nil
}

// counted notes what the library has counted.
func (r *round) counted(s novastream.SenderStats) {
	r.rec.set(sBatches, s.Batches)
	r.rec.set(sFrames, s.Frames)
	r.rec.set(sPayload, s.Payload)
	r.rec.set(sWire, s.Wire)
}

// began and sent are called before a frame is sent and when that has succeeded.
func (r *round) began(n uint64) { r.rec.set(sAttempted, n+1) }

func (r *round) sent(n uint64, bytes int) {
	r.rec.add(sBytes, uint64(bytes))
	if r.p.Sabotage == SabotageTail {
		n += 3
	}
	r.rec.set(sCommitted, n+1)
}
