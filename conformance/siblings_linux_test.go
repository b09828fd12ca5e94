package conformance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// siblings are two streams between the nodes of a test, which go on beside what it
// does: what is sent on one is sent back on the other. One value alone shows the round
// trip, many the throughput.
type siblings struct {
	e    *Env
	ping Sender
	back *novastream.Receiver[Rec]
	sent uint64

	mu            sync.Mutex
	trips, bursts []time.Duration
}

// burst is how many values are sent together; they fit in a ring.
const burst = 500

// newSiblings starts them; stop tells of one that has ended before.
func newSiblings(e *Env) (s *siblings, stop func()) {
	there := e.Create(novastream.AttachTimeout(0))
	back := CreateOn(e, e.TXHere(), novastream.AttachTimeout(0))
	pong, err := novastream.Attach[Rec](e.Ctx, e.RX, back.Handle(), novastream.Lanes(e.Lane.Lane))
	require.NoError(e, err)
	e.Cleanup(func() { pong.Close() })
	s = &siblings{e: e, ping: e.Attach(there.Handle()), back: back}
	e.Expect(back, novastream.KindAttached)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- echo(ctx, there, pong) }()
	go func() { done <- s.run(ctx) }()
	return s, func() {
		cancel()
		for range 2 {
			require.ErrorIs(e, <-done, context.Canceled, "a sibling stream has ended")
		}
	}
}

// echo sends back what comes.
func echo(ctx context.Context, from *novastream.Receiver[Rec], to *novastream.Sender[Rec]) error {
	for v, err := range from.Values(ctx) {
		if err != nil {
			return err
		}
		if err := to.Send(ctx, v); err != nil {
			return err
		}
	}
	return fmt.Errorf("the values have ended: %v", ctx.Err())
}

func (s *siblings) run(ctx context.Context) error {
	for i := 0; ; i++ {
		n, took := uint64(1), &s.trips
		if i%4 == 0 {
			n, took = burst, &s.bursts
		}
		start := time.Now()
		if err := s.call(ctx, n); err != nil {
			return err
		}
		d := time.Since(start)
		s.mu.Lock()
		*took = append(*took, d)
		s.mu.Unlock()
		quiet(200 * time.Microsecond) // the test has two processors
	}
}

// call sends n values and waits until all have come back.
func (s *siblings) call(ctx context.Context, n uint64) error {
	for i := s.sent; i < s.sent+n; i++ {
		if err := s.ping.Send(ctx, MakeRec(i)); err != nil {
			return err
		}
	}
	for range n {
		f, err := s.back.Recv(ctx)
		if err != nil {
			return err
		}
		if f.Kind != novastream.KindData || f.Value != MakeRec(s.sent) {
			return fmt.Errorf("%v instead of value %d: %w", f.Kind, s.sent, f.Err)
		}
		s.sent++
	}
	return nil
}

// pace is what siblings did while something ran.
type pace struct{ trips, bursts []time.Duration }

func (p pace) String() string {
	at := func(d []time.Duration, percent int) time.Duration {
		return d[len(d)*percent/100].Round(100 * time.Nanosecond)
	}
	if len(p.trips) == 0 || len(p.bursts) == 0 {
		return "over too soon"
	}
	slices.Sort(p.trips)
	slices.Sort(p.bursts)
	return fmt.Sprintf("%6.2f M values/s there and back, round trip p50 %8v, p99 %8v",
		burst/1e6/at(p.bursts, 50).Seconds(), at(p.trips, 50), at(p.trips, 99))
}

// during measures the siblings while something runs.
func (s *siblings) during(run func()) pace {
	s.take()
	run()
	return s.take()
}

func (s *siblings) take() (p pace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = pace{s.trips, s.bursts}
	s.trips, s.bursts = nil, nil
	return p
}

// flow waits until they have gone on.
func (s *siblings) flow() {
	s.e.Helper()
	s.take()
	trips := 0
	s.e.Until(func() bool { trips += len(s.take().trips); return trips > 1 }, "a sibling stream stands still")
}
