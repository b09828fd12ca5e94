package rdma_test

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	lrdma "github.com/novastream/novastream/internal/lane/rdma"
	"github.com/novastream/novastream/rdma"
)

// probes is what a device has written of no bytes, which only probes do.
type probes struct {
	mu        sync.Mutex
	posted    int
	others    int // requests of sessions
	signalled int
	of        map[uint32]int // by queue pair
	before    func()         // called before the next write
	failed    func()         // called when the queue pair of one is given up
}

// read calls fn with nobody writing.
func (p *probes) read(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

func (p *probes) count() (n int) {
	p.read(func() { n = p.posted })
	return n
}

// fresh forgets what was written.
func (p *probes) fresh() {
	p.read(func() { p.posted, p.signalled, p.of = 0, 0, nil })
}

type probedQP struct {
	rdma.QP
	probes *probes
}

func (q *probedQP) PostSend(wrs []rdma.SendWR) (int, error) {
	p := q.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(wrs) != 1 || wrs[0].Op != rdma.OpWrite || wrs[0].Local.Length != 0 {
		p.others++
		return q.QP.PostSend(wrs)
	}
	if p.before != nil {
		p.before()
		p.before = nil
	}
	n, err := q.QP.PostSend(wrs)
	p.posted += n
	if n > 0 && wrs[0].Flags&rdma.Signaled != 0 {
		p.signalled++
	}
	if p.of == nil {
		p.of = map[uint32]int{}
	}
	p.of[q.Num()] += n
	return n, err
}

func (q *probedQP) Abort() error {
	q.probes.read(func() {
		if q.probes.of[q.Num()] > 0 && q.probes.failed != nil {
			q.probes.failed()
		}
	})
	return q.QP.Abort()
}

// newWorld is two nodes for one test.
func newWorld(t *testing.T) *world {
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir}
	w.open()
	return w
}

// stream is one that nothing has been sent over.
type stream struct {
	rx *novastream.Receiver[rec]
	tx *novastream.Sender[rec]
}

func (w *world) stream(ctx context.Context, from, to *side) stream {
	rx, err := novastream.Create[rec](to.s, novastream.Capacity(64), novastream.Wait(novastream.Park))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { rx.Close() })
	tx, err := novastream.Attach[rec](ctx, from.s, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { tx.Close() })
	f, err := rx.Recv(ctx)
	require.NoError(w.t, err)
	require.Equal(w.t, novastream.KindAttached, f.Kind)
	return stream{rx, tx}
}

// quiet waits until sessions post nothing any more, their waits for the next frame
// included.
func (w *world) quiet(t *testing.T) {
	others := func() (n int) {
		for _, s := range []*side{w.rx, w.tx} {
			s.probes.read(func() { n += s.probes.others })
		}
		return n
	}
	probed, posted := w.rx.probes.count(), others()
	require.Eventually(t, func() bool {
		if now := others(); now != posted {
			probed, posted = w.rx.probes.count(), now
		}
		return posted > 0 && w.rx.probes.count() > probed+1
	}, 20*time.Second, time.Millisecond)
}

// lives sends over the stream until its end.
func (s stream) lives(ctx context.Context, t *testing.T) {
	const count = 200 // more than its ring has room for
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			for i := range uint64(count) {
				if err := s.tx.Send(ctx, makeRec(i)); err != nil {
					return err
				}
			}
			return s.tx.Finalize(ctx)
		}()
	}()
	for i := range uint64(count) {
		f, err := s.rx.Recv(ctx)
		require.NoError(t, err)
		require.Equal(t, novastream.KindData, f.Kind, "%v", f.Err)
		require.Equal(t, makeRec(i), f.Value)
	}
	f, err := s.rx.Recv(ctx)
	require.NoError(t, err)
	require.Equal(t, novastream.KindFinalized, f.Kind, "%v", f.Err)
	require.NoError(t, <-sent)
}

// fails waits until both ends are told, once, without sending anything.
func (s stream) fails(ctx context.Context, t *testing.T) {
	f, err := s.rx.Recv(ctx)
	if assert.NoError(t, err) {
		assert.Equal(t, novastream.KindTransportError, f.Kind)
		assert.ErrorIs(t, f.Err, novastream.ErrTransport)
		_, err = s.rx.Recv(ctx)
		assert.ErrorIs(t, err, io.EOF)
	}
	select {
	case <-s.tx.Done():
		assert.ErrorIs(t, s.tx.Err(), novastream.ErrTransport)
	case <-ctx.Done():
		assert.Fail(t, "the sender is not told")
	}
}

// The default settings keep what they promise of a link's loss.
func TestLossNoticed(t *testing.T) {
	idle, busy, outlasted := lrdma.LossNoticed()
	require.Less(t, idle, time.Second)
	require.Less(t, busy, time.Second)
	require.Greater(t, outlasted, 150*time.Millisecond)
}

// An idle link is probed without end, by each side through one queue pair, although
// there are two; and few probes complete.
func TestIdleLinkIsProbed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	w := newWorld(t)
	there, back := w.stream(ctx, w.tx, w.rx), w.stream(ctx, w.rx, w.tx)
	sides := []*side{w.tx, w.rx}
	for _, s := range sides {
		s.probes.fresh()
	}
	for _, s := range sides {
		require.Eventually(t, func() bool { return s.probes.count() > 2*lrdma.SendDepth }, 30*time.Second, time.Millisecond)
		s.probes.read(func() {
			require.Len(t, s.probes.of, 1)
			require.LessOrEqual(t, s.probes.signalled, s.probes.posted/lrdma.SignalEvery+1)
		})
	}
	there.lives(ctx, t)
	back.lives(ctx, t)
}

// With the default settings, both ends of an idle stream are told of a cut link.
func TestIdleLinkIsCut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lrdma.Patience()
	defer lrdma.Hurry(hurry)
	w := newWorld(t)
	for name, s := range map[string]*side{"receiver's": w.rx, "sender's": w.tx} {
		t.Run(name, func(t *testing.T) {
			idle := w.stream(ctx, w.tx, w.rx)
			ctx, cancel := context.WithCancel(ctx)
			told := make(chan struct{})
			go func() {
				defer close(told)
				idle.fails(ctx, t)
			}()
			defer func() {
				cancel()
				<-told
			}()
			w.quiet(t)
			start := time.Now()
			s.dev.Cut(0)
			<-told
			t.Log("told after", time.Since(start))
			s.heal()
		})
	}
}

// With the default settings, a cut of 150 ms that a probe falls into is no failure of
// an idle stream.
func TestIdleLinkIsCutShortly(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lrdma.Patience()
	defer lrdma.Hurry(hurry)
	w := newWorld(t)
	for name, s := range map[string]*side{"receiver's": w.rx, "sender's": w.tx} {
		t.Run(name, func(t *testing.T) {
			idle := w.stream(ctx, w.tx, w.rx)
			at := make(chan int, 1)
			s.probes.read(func() {
				s.probes.before = func() {
					s.dev.Cut(150 * time.Millisecond)
					at <- s.probes.posted
				}
			})
			var n int
			select {
			case n = <-at:
			case <-ctx.Done():
				require.Fail(t, "not probed")
			}
			require.Eventually(t, func() bool { return s.probes.count() > n+2 }, 20*time.Second, time.Millisecond)
			idle.lives(ctx, t)
		})
	}
}

// A write that fails says nothing of sessions that were made after it had set out,
// although later ones were under way: they live when the path does.
func TestProbeFailsOnlyWhatItCovers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	lrdma.Hurry(rdma.ConnectOptions{Timeout: 100 * time.Millisecond, RetryCount: 6})
	defer lrdma.Hurry(hurry)
	for {
		w := newWorld(t)
		old := w.stream(ctx, w.tx, w.rx)
		sides := []*side{w.tx, w.rx}
		failed := false
		var mu sync.Mutex
		for _, s := range sides {
			s.probes.read(func() {
				s.probes.failed = func() {
					mu.Lock()
					defer mu.Unlock()
					failed = true
					w.tx.dev.Mend()
				}
			})
		}
		w.tx.dev.Cut(0)
		for _, s := range sides {
			n := s.probes.count()
			require.Eventually(t, func() bool { return s.probes.count() > n }, 20*time.Second, time.Millisecond)
		}
		young := w.stream(ctx, w.tx, w.rx)
		n := w.tx.probes.count()
		require.Eventually(t, func() bool { return w.tx.probes.count() > n }, 20*time.Second, time.Millisecond)
		mu.Lock()
		late := failed
		mu.Unlock()
		if late {
			continue // the machine was too slow
		}
		old.fails(ctx, t)
		young.lives(ctx, t)
		return
	}
}
