package rdmatest

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// eventEnds: Event ends with its context, and with the device's Close.
func eventEnds(e *env) {
	ctx, cancel := context.WithTimeout(e.ctx, 5*time.Millisecond)
	defer cancel()
	_, err := e.a.Event(ctx)
	require.ErrorIs(e, err, context.DeadlineExceeded)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := e.a.Event(e.ctx)
			done <- err
		}()
	}
	require.NoError(e, e.a.Close())
	require.ErrorIs(e, <-done, rdma.ErrClosed)
	require.ErrorIs(e, <-done, rdma.ErrClosed)
	_, err = e.a.NewDomain()
	require.ErrorIs(e, err, rdma.ErrClosed)
}

// closeAnyOrder: everything can be closed in any order, with work outstanding, and
// again; what is left of the other side ends by itself.
func closeAnyOrder(e *env) {
	type closer func(s *end) error
	qp := func(s *end) error { return s.qp.Close() }
	scq := func(s *end) error { return s.scq.Close() }
	rcq := func(s *end) error { return s.rcq.Close() }
	mem := func(s *end) error { return s.mem.Close() }
	dom := func(s *end) error { return s.dom.Close() }
	dev := func(s *end) error { return s.dev.Close() }
	for name, order := range map[string][]closer{
		"as made, backwards": {qp, mem, rcq, scq, dom, dev},
		"as made":            {dev, dom, scq, rcq, qp, mem},
		"queues first":       {scq, rcq, qp, mem, dom, dev},
		"regions first":      {mem, qp, dom, scq, rcq, dev},
		"domain first":       {dom, mem, rcq, scq, qp, dev},
	} {
		e.part(name, func(e *env) {
			a, b := e.pair(impatient)
			for _, s := range []*end{a, b} {
				s.recv(64, 1, 2)
			}
			for range depth / 2 {
				a.post(a.writeTo(b.mem, 0, 4096))
				b.post(b.writeTo(a.mem, regionSize/2, 4096))
			}
			for range 2 {
				for _, f := range order {
					require.NoError(e, f(a))
				}
			}
			// The other side fails, or had nothing left to do; new work fails.
			if _, err := b.qp.PostSend([]rdma.SendWR{b.writeTo(a.mem, 0, 8)}); err == nil {
				e.inError(b.qp)
			}
			for _, f := range order {
				require.NoError(e, f(b))
			}
			_, err := a.dom.NewCQ(1)
			require.ErrorIs(e, err, rdma.ErrClosed)
			_, err = a.dom.NewRegion(4096, 0)
			require.ErrorIs(e, err, rdma.ErrClosed)
		})
	}
}

// closeUnderway: Close meets posts, polls, waits and the peer's writes, in every
// combination; calls end with ErrClosed or flushed work, and nothing hangs.
func closeUnderway(e *env) {
	for round := range 10 {
		a, b := e.pair(impatient)
		var wg sync.WaitGroup
		for i, s := range [][2]*end{{a, b}, {b, a}} {
			wg.Go(func() { // posts and takes until something ends it
				wr := s[0].writeTo(s[1].mem, i*regionSize/2, 2048)
				for {
					if _, err := s[0].qp.PostSend([]rdma.SendWR{wr}); err != nil {
						return
					}
					if got, err := take(e.ctx, s[0].scq, 1); err != nil || got[0].Status != rdma.Success {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(round) * 200 * time.Microsecond)
		var err error
		switch round % 5 {
		case 0:
			err = a.qp.Close()
		case 1:
			err = a.mem.Close()
		case 2:
			err = a.scq.Close()
		case 3:
			err = a.dom.Close()
		case 4:
			err = a.qp.Abort()
		}
		require.NoError(e, err)
		wg.Wait()
		require.NoError(e, e.ctx.Err(), "round %d", round)
		require.NoError(e, a.dom.Close())
		require.NoError(e, b.dom.Close())
	}
}

// nothingLeft: pairs made, used and closed a hundred times leave no goroutine
// behind.
func nothingLeft(e *env) {
	base := 0
	for round := range 100 {
		a, b := e.pair(usual)
		a.post(a.writeTo(b.mem, 0, 512))
		a.sent()
		require.NoError(e, a.dom.Close())
		require.NoError(e, b.dom.Close())
		if round == 10 {
			base = runtime.NumGoroutine()
		}
	}
	e.until("no goroutine is left", func() bool { return runtime.NumGoroutine() <= base+2 })
}
