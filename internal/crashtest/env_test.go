//go:build failpoint && linux

package crashtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/conformance"
	"github.com/novastream/novastream/control"
)

// env is the surviving process: two nodes, one of which receives while the other
// sends beside the child.
type env struct {
	*testing.T
	dir  string
	a, b *novastream.Streaming
	ctx  context.Context
}

// rounds runs a scenario again and again until it leaves no more than the time
// before: what a node keeps for later is there after the first, and what leaks
// grows each time.
func rounds(t *testing.T, scenario func(e *env)) {
	dir, err := os.MkdirTemp("", "nc") // not t.TempDir: a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	e := &env{T: t, dir: dir, ctx: c}
	e.a, e.b = e.node(), e.node()
	scenario(e)
	last := e.settled()
	for range 4 {
		scenario(e)
		now := e.settled()
		if now.Goroutines <= last.Goroutines && now.Descriptors <= last.Descriptors && now.Mappings <= last.Mappings {
			e.files()
			return
		}
		last = now
	}
	require.Fail(t, "each time more is held", "%+v", last)
}

func (e *env) node() *novastream.Streaming {
	n, err := control.Listen(ctx, control.WithDir(e.dir))
	require.NoError(e, err)
	s, err := novastream.New(n)
	require.NoError(e, err)
	e.Cleanup(func() { s.Close(); n.Close() })
	return s
}

func (e *env) until(cond func() bool, what string) {
	e.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(100 * time.Microsecond) {
		require.True(e, time.Now().Before(end), what)
	}
}

// asleep waits until somebody of this process sleeps beside a ring.
func (e *env) asleep() {
	e.Helper()
	stacks := make([]byte, 1<<20)
	e.until(func() bool {
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("shm.(*Parker).sleep("))
	}, "nobody sleeps")
}

// settled waits until no session is left, and what is held stays as it is.
func (e *env) settled() conformance.Holdings {
	e.Helper()
	for _, s := range []*novastream.Streaming{e.a, e.b} {
		e.until(func() bool {
			st := s.Stats()
			return st.Anchors+st.Inbound+st.Outlets+st.Senders == 0 && st.Memory == 0
		}, "a session is left")
	}
	last, since := conformance.Held(), time.Now()
	e.until(func() bool {
		now := conformance.Held()
		now.Threads = last.Threads
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 10*time.Millisecond
	}, "what is held goes on changing")
	return last
}

// files looks that nothing of the dead is left in the directory.
func (e *env) files() {
	_, err := control.Directory(e.dir).List(ctx) // as each start does
	require.NoError(e, err)
	left, err := os.ReadDir(e.dir)
	require.NoError(e, err)
	for _, f := range left {
		mine := false
		for _, s := range []*novastream.Streaming{e.a, e.b} {
			mine = mine || strings.HasPrefix(f.Name(), s.Node().WorkerID().String())
		}
		require.True(e, mine, "%s is left", f.Name())
	}
}

// event is a frame of either kind of stream.
type event struct {
	kind   novastream.Kind
	sender novastream.SenderID
	number int // of a data frame, -1 for one that is not whole
	err    error
}

// receiver is a stream of either kind.
type receiver struct {
	e      *env
	handle novastream.Handle
	bytes  bool
	try    func() (event, error)
	recv   func() (event, error)
	close  func() error
	events []event
}

func (e *env) create(bytes bool, opts ...novastream.CreateOption) *receiver {
	opts = append(opts, novastream.Wait(novastream.Park))
	r := &receiver{e: e, bytes: bytes}
	if bytes {
		rx, err := novastream.CreateBytes(e.a, opts...)
		require.NoError(e, err)
		number := func(f novastream.Frame[[]byte]) event {
			ev := event{f.Kind, f.Sender, -1, f.Err}
			if f.Kind == novastream.KindData && len(f.Value) > 0 && strings.Count(string(f.Value), string(f.Value[:1])) == len(f.Value) {
				ev.number = int(f.Value[0] - '0')
			}
			return ev
		}
		r.handle, r.close = rx.Handle(), rx.Close
		r.try = func() (event, error) { f, err := rx.TryRecv(nil); return number(f), err }
		r.recv = func() (event, error) { f, err := rx.Recv(e.ctx, nil); return number(f), err }
		return r
	}
	rx, err := novastream.Create[conformance.Rec](e.a, opts...)
	require.NoError(e, err)
	number := func(f novastream.Frame[conformance.Rec]) event {
		ev := event{f.Kind, f.Sender, -1, f.Err}
		if f.Kind == novastream.KindData && f.Value.Whole() {
			ev.number = int(f.Value.Seq)
		}
		return ev
	}
	r.handle, r.close = rx.Handle(), rx.Close
	r.try = func() (event, error) { f, err := rx.TryRecv(); return number(f), err }
	r.recv = func() (event, error) { f, err := rx.Recv(e.ctx); return number(f), err }
	return r
}

// drain takes what is there.
func (r *receiver) drain() {
	for {
		ev, err := r.try()
		if errors.Is(err, novastream.ErrEmpty) || errors.Is(err, io.EOF) {
			return
		}
		require.NoError(r.e, err)
		r.events = append(r.events, ev)
	}
}

// until receives until the sender's exit has come.
func (r *receiver) until(sender novastream.SenderID) {
	for !r.exit(sender).Exit() {
		ev, err := r.recv()
		if err != nil {
			r.e.Errorf("sender %d has no exit: %v; events %v", sender, err, r.events)
			return
		}
		r.events = append(r.events, ev)
	}
}

// exit is the kind of a sender's last frame so far.
func (r *receiver) exit(sender novastream.SenderID) (kind novastream.Kind) {
	for _, ev := range r.events {
		if ev.sender == sender {
			kind = ev.kind
		}
	}
	return kind
}

// count is how many data frames of a sender have come, which must be whole and in
// order.
func (r *receiver) count(sender novastream.SenderID) (n int) {
	r.e.Helper()
	for _, ev := range r.events {
		if ev.sender == sender && ev.kind == novastream.KindData {
			require.Equal(r.e, n%64, ev.number%64, "lost, doubled, torn or out of order: %v", r.events)
			n++
		}
	}
	return n
}

// expect looks that a sender's frames came, and the right end once.
func (r *receiver) expect(sender novastream.SenderID, frames int, end novastream.Kind) {
	r.e.Helper()
	require.Equal(r.e, frames, r.count(sender), "%v", r.events)
	attached, exits := 0, 0
	for i, ev := range r.events {
		if ev.sender != sender {
			continue
		}
		switch {
		case ev.kind == novastream.KindAttached:
			require.Zero(r.e, i-attached-exits-r.before(sender, i), "%v", r.events)
			attached++
		case ev.kind.Exit():
			exits++
			require.Equal(r.e, end, ev.kind, "%v", ev.err)
			if end == novastream.KindDropped {
				require.ErrorIs(r.e, ev.err, novastream.ErrPeerDead)
			}
		default:
			require.Zero(r.e, exits, "a frame behind the end: %v", r.events)
			require.Equal(r.e, novastream.KindData, ev.kind)
		}
	}
	require.Equal(r.e, 1, attached)
	require.Equal(r.e, 1, exits)
}

// before is how many events of others come before the i-th.
func (r *receiver) before(sender novastream.SenderID, i int) (n int) {
	for _, ev := range r.events[:i] {
		if ev.sender != sender {
			n++
		}
	}
	return n
}

// sending is a sender of either kind in the surviving process.
type sending struct {
	id       novastream.SenderID
	send     func(i int) error
	try      func(i int) error
	finalize func() error
	detach   func() error
	close    func() error
	err      func() error
}

func (e *env) attach(h novastream.Handle, bytes bool) *sending {
	if bytes {
		tx, err := novastream.AttachBytes(e.ctx, e.b, h)
		require.NoError(e, err)
		e.Cleanup(func() { tx.Close() })
		return &sending{
			id:       tx.ID(),
			send:     func(i int) error { return tx.Send(e.ctx, frame(i, 20)) },
			try:      func(i int) error { return tx.TrySend(frame(i, 20)) },
			finalize: func() error { return tx.Finalize(e.ctx) },
			detach:   func() error { return tx.Detach(e.ctx) },
			close:    tx.Close, err: tx.Err,
		}
	}
	tx, err := novastream.Attach[conformance.Rec](e.ctx, e.b, h)
	require.NoError(e, err)
	e.Cleanup(func() { tx.Close() })
	return &sending{
		id:       tx.ID(),
		send:     func(i int) error { return tx.Send(e.ctx, conformance.MakeRec(uint64(i))) },
		try:      func(i int) error { v := conformance.MakeRec(uint64(i)); return tx.TrySend(&v) },
		finalize: func() error { return tx.Finalize(e.ctx) },
		detach:   func() error { return tx.Detach(e.ctx) },
		close:    tx.Close, err: tx.Err,
	}
}
