package torture

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream"
)

// receivers are the receiving ends of an episode.
type receivers struct {
	all []*receiver
	wg  sync.WaitGroup
}

// receiver reads one stream to its end and keeps the books of its sessions.
type receiver struct {
	in       in
	p        *Plan
	s        *StreamPlan
	index    int
	t        record
	region   region
	next     *atomic.Int64 // session record of the region
	sessions map[novastream.SenderID]*session
	frames   int
}

// session is one sender's, as its receiver sees it.
type session struct {
	rec     record
	next    uint64
	missing map[uint64]bool
	over    bool
}

// receive makes the streams of an episode and begins to read them.
func (h *host) receive(ctx context.Context, j *job) (*receivers, []novastream.Handle, error) {
	rs := &receivers{}
	next := new(atomic.Int64)
	var handles []novastream.Handle
	for i := range j.Plan.Streams {
		s := &j.Plan.Streams[i]
		end, err := newIn(h, s)
		if err != nil {
			for _, r := range rs.all {
				r.in.Close()
			}
			return nil, nil, err
		}
		g := h.ledger.region(j.Region)
		r := &receiver{
			in: end, p: &j.Plan, s: s, index: i, t: g.stream(i), region: g, next: next,
			sessions: map[novastream.SenderID]*session{},
		}
		rs.all = append(rs.all, r)
		handles = append(handles, end.Handle())
	}
	for _, r := range rs.all {
		rs.wg.Go(func() { r.run(ctx) })
	}
	return rs, handles, nil
}

// stop ends the streams when all senders have ended: who waits for more is told.
func (rs *receivers) stop() {
	for _, r := range rs.all {
		r.t.set(tStopped, 1)
		_ = r.in.Stop(context.Background())
	}
}

func (r *receiver) run(ctx context.Context) {
	defer r.in.Close()
	if r.s.Act != Read {
		var acts sync.WaitGroup
		acts.Add(1)
		t := time.AfterFunc(r.s.After, func() {
			defer acts.Done()
			r.t.set(tActed, uint64(r.s.Act))
			r.act()
		})
		defer func() {
			if !t.Stop() {
				acts.Wait()
			}
		}()
	}
	for {
		err := r.in.pull(ctx, r.take)
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			r.t.note(err.Error())
			r.t.set(tError, uint64(verdictOf(err)))
			return
		}
		if again := r.in.pull(ctx, func(arrival) { r.t.add(tAfterEnd, 1) }); errors.Is(again, io.EOF) {
			r.t.set(tEOF, 1)
			return
		}
		r.t.add(tAfterEnd, 1)
	}
}

func (r *receiver) act() {
	switch r.s.Act {
	case Cancel:
		_ = r.in.Cancel("torture")
	case Stop:
		_ = r.in.Stop(context.Background())
	case Close:
		_ = r.in.Close()
	}
}

// pauseEvery is after how many frames a slow receiver rests.
const pauseEvery = 32

// take keeps the book of one arrival.
func (r *receiver) take(a arrival) {
	s := r.sessions[a.sender]
	switch {
	case a.kind == novastream.KindAttached:
		r.attached(a, s)
	case a.sender == 0:
		r.t.set(tKind, uint64(a.kind))
	case s == nil || s.over:
		r.t.add(tUnknown, 1)
	case a.kind == novastream.KindData:
		s.take(a, r.p.Episode)
		if r.frames++; r.s.Slow && r.frames%pauseEvery == 0 {
			time.Sleep(time.Millisecond)
		}
	default:
		s.over = true
		s.rec.set(rCounted, a.seq)
		s.rec.add(rExits, 1)
		if a.err != nil {
			s.rec.note(a.err.Error())
		}
		s.rec.set(rKind, uint64(a.kind))
		s.rec.set(rEndAt, now())
	}
}

func (r *receiver) attached(a arrival, s *session) {
	r.t.add(tAttached, 1)
	i := r.next.Add(1) - 1
	if s != nil || i >= maxSessions {
		r.t.add(tOverflow, 1)
		return
	}
	s = &session{rec: r.region.session(int(i)), missing: map[uint64]bool{}}
	s.rec.set(rID, uint64(a.sender))
	s.rec.set(rFirstAt, now())
	s.rec.set(rStream, uint64(r.index)+1)
	r.sessions[a.sender] = s
}

// maxMissing bounds how many numbers of a gap are remembered.
const maxMissing = 1 << 12

func (s *session) take(a arrival, episode uint64) {
	sender, ours := recordOf(a.id, episode)
	known := int(s.rec.get(rSender)) - 1
	switch {
	case !a.whole:
		s.rec.add(rTorn, 1)
		s.next++ // it has its place, though not its contents
		return
	case !ours || known >= 0 && known != sender:
		s.rec.add(rForeign, 1)
		return
	case known < 0:
		s.rec.set(rSender, uint64(sender)+1)
	}
	if a.known && a.seq != s.rec.get(rGot)+s.rec.get(rTorn)+s.rec.get(rDoubled)+s.rec.get(rForeign) {
		s.rec.add(rMisnumbered, 1)
	}
	switch {
	case a.n == s.next:
		s.next++
	case a.n > s.next:
		s.rec.add(rMissing, a.n-s.next)
		for n := s.next; n < a.n && len(s.missing) < maxMissing; n++ {
			s.missing[n] = true
		}
		s.next = a.n + 1
	case s.missing[a.n]:
		delete(s.missing, a.n)
		s.rec.set(rMissing, s.rec.get(rMissing)-1)
		s.rec.add(rReordered, 1)
	default:
		s.rec.add(rDoubled, 1)
		return
	}
	s.rec.add(rGot, 1)
	s.rec.add(rBytes, uint64(a.size))
}
