package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// queueFull: a queue takes as many as it was made for, and a place comes free when
// a completion has been polled, not before.
func queueFull(e *env) {
	a, b := e.pair(usual)
	small := func(s *end) rdma.QP {
		qp, err := s.dom.NewQP(rdma.QPOptions{SendCQ: s.scq, RecvCQ: s.rcq, MaxSend: 4, MaxRecv: 4})
		require.NoError(e, err)
		return qp
	}
	a.qp, b.qp = small(a), small(b)
	e.connect(a.qp, b.qp, usual)
	wr := a.writeTo(b.mem, 0, 8)
	wr.Flags = 0
	last := wr
	last.Flags = rdma.Signaled
	// Real devices may have more places than was asked for: how many is found out.
	places := 0
	for ; places < 4096; places++ {
		n, err := a.qp.PostSend([]rdma.SendWR{wr})
		if errors.Is(err, rdma.ErrQueueFull) {
			require.Zero(e, n)
			break
		}
		require.NoError(e, err)
		if places == 2 {
			wr.Flags = rdma.Signaled
		}
	}
	require.GreaterOrEqual(e, places, 4)
	require.Less(e, places, 4096)
	for range places - 3 {
		a.sent()
	}
	for i := range places {
		w := wr
		w.Flags = 0
		if i == places-1 {
			w = last
		}
		a.post(w)
	}
	_, err := a.qp.PostSend([]rdma.SendWR{wr})
	require.ErrorIs(e, err, rdma.ErrQueueFull)
	a.sent()
	a.post(last)
	a.sent()

	n, err := b.qp.PostRecv(make([]rdma.RecvWR, 4096))
	require.ErrorIs(e, err, rdma.ErrQueueFull)
	require.GreaterOrEqual(e, n, 4)
	a.post(rdma.SendWR{Op: rdma.OpWriteImm, Flags: rdma.Signaled})
	a.sent()
	b.received()
	b.recv(0, 1)
}

// sharedCQ: many queue pairs share one completion queue, and each completion tells
// whose it is.
func sharedCQ(e *env) {
	a, b := e.side(e.a), e.side(e.b)
	const pairs, each = 16, 8
	posted := map[uint32]int{}
	var as []rdma.QP
	for range pairs {
		x, y := a.newQP(), b.newQP()
		e.connect(x, y, usual)
		as = append(as, x)
	}
	for i := range each {
		for _, x := range as {
			wr := a.writeTo(b.mem, 8*i, 8)
			wr.ID = uint64(i)
			_, err := x.PostSend([]rdma.SendWR{wr})
			require.NoError(e, err)
		}
	}
	for _, c := range e.await(a.scq, pairs*each) {
		require.NoError(e, c.Status.Err())
		require.EqualValues(e, posted[c.QP], c.ID)
		posted[c.QP]++
	}
	require.Len(e, posted, pairs)
	for _, n := range posted {
		require.Equal(e, each, n)
	}
}

// cqOverflow: a completion queue that had no room says so after what it holds, and
// its queue pair is lost.
func cqOverflow(e *env) {
	a, b := e.pair(usual)
	var err error
	a.scq, err = a.dom.NewCQ(4)
	require.NoError(e, err)
	a.qp = a.newQP()
	b.qp = b.newQP()
	e.connect(a.qp, b.qp, usual)
	for range depth - 1 {
		a.post(a.writeTo(b.mem, 0, 8))
	}
	e.inError(a.qp)
	got := 0
	dst := make([]rdma.Completion, 8)
	for {
		n, err := a.scq.Poll(dst)
		if err != nil {
			require.ErrorIs(e, err, rdma.ErrOverflow)
			break
		}
		if got += n; n == 0 {
			require.NoError(e, a.scq.Wait(e.ctx))
		}
	}
	require.GreaterOrEqual(e, got, 4)
	require.Less(e, got, depth-1)
	require.NoError(e, a.scq.Wait(e.ctx)) // there is something to poll: the error
}

// wait: two sides that sleep until the other has sent never sleep over a
// completion.
func wait(e *env) {
	a, b := e.pair(usual)
	const rounds = 2000
	ctx, cancel := context.WithCancelCause(e.ctx)
	defer cancel(nil)
	side := func(s *end, first bool) error {
		for i := range uint64(rounds) {
			if i > 0 || !first {
				got, err := take(ctx, s.rcq, 1)
				if err != nil {
					return fmt.Errorf("round %d: %w", i, err)
				}
				if err := got[0].Status.Err(); err != nil {
					return err
				}
			}
			if _, err := s.qp.PostRecv([]rdma.RecvWR{{}}); err != nil {
				return err
			}
			if _, err := s.qp.PostSend([]rdma.SendWR{{Op: rdma.OpWriteImm, Flags: rdma.Signaled}}); err != nil {
				return err
			}
			got, err := take(ctx, s.scq, 1)
			if err != nil {
				return fmt.Errorf("round %d: %w", i, err)
			}
			if err := got[0].Status.Err(); err != nil {
				return err
			}
		}
		return nil
	}
	a.recv(0, 1)
	b.recv(0, 1)
	var wg sync.WaitGroup
	for i, s := range []*end{a, b} {
		wg.Go(func() {
			if err := side(s, i == 0); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	require.NoError(e, context.Cause(ctx))
}

// waitEnds: Wait ends with its context, and with the queue's Close; after either,
// and with something to poll, it does not sleep.
func waitEnds(e *env) {
	a, b := e.pair(usual)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(e.ctx)
	time.AfterFunc(5*time.Millisecond, func() { cancel(why) })
	for {
		if err := a.scq.Wait(ctx); err != nil {
			require.ErrorIs(e, err, why)
			break
		}
	}
	a.post(a.writeTo(b.mem, 0, 8))
	require.NoError(e, a.scq.Wait(e.ctx))
	a.sent()
	done := make(chan error, 1)
	go func() {
		for {
			if err := a.scq.Wait(e.ctx); err != nil {
				done <- err
				return
			}
		}
	}()
	time.Sleep(5 * time.Millisecond) // lets it sleep; nothing depends on it
	require.NoError(e, a.scq.Close())
	require.ErrorIs(e, <-done, rdma.ErrClosed)
	require.ErrorIs(e, a.scq.Wait(e.ctx), rdma.ErrClosed)
	_, err := a.scq.Poll(make([]rdma.Completion, 1))
	require.ErrorIs(e, err, rdma.ErrClosed)
	_, err = a.qp.PostSend([]rdma.SendWR{{Op: rdma.OpWrite}})
	require.ErrorIs(e, err, rdma.ErrClosed) // it went with its completion queue
}
