package conformance

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// quiet waits long enough for something to happen that must not.
func quiet(d time.Duration) { <-time.After(d) }

// SlowConsumer is case 15: a slow consumer alone never fires a timeout.
func SlowConsumer(e *Env) {
	rx := e.Create(novastream.Capacity(16), novastream.MessageTimeout(pause), novastream.AttachTimeout(pause))
	tx := e.Attach(rx.Handle())
	n := e.Fill(tx)
	quiet(3 * pause)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, n)
	e.Send(tx, n, n+5)
	e.ExpectData(rx, n, n+5)
	require.NoError(e, tx.Progress())
}

// Heartbeats is case 16: heartbeats reach no consumer and use no data capacity.
func Heartbeats(e *Env) {
	rx := e.Create(novastream.Capacity(16), novastream.MessageTimeout(2*pause))
	tx := e.Attach(rx.Handle())
	e.Expect(rx, novastream.KindAttached)
	quiet(5 * pause)
	_, err := rx.TryRecv()
	require.ErrorIs(e, err, novastream.ErrEmpty)
	require.Equal(e, uint64(16), e.Fill(tx))
	quiet(5 * pause)
	e.ExpectData(rx, 0, 16)
	_, err = rx.TryRecv()
	require.ErrorIs(e, err, novastream.ErrEmpty)
}

// FullKeepsItem is cases 19 and 55: TrySend answers ErrFull with the item still
// the caller's; trying again keeps the order, and as many arrive as were sent.
func FullKeepsItem(e *Env) {
	rx := e.Create(novastream.Capacity(8))
	tx := e.Attach(rx.Handle())
	const total = 5000
	done := make(chan error, 1)
	go func() { done <- errors.Join(tx.Retry(e.Ctx, total), tx.Finalize(e.Ctx)) }()
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, total)
	e.Expect(rx, novastream.KindFinalized)
	require.NoError(e, <-done)
}

// ProgressReports is case 20: Progress reports cancel or failure without
// sending.
func ProgressReports(e *Env) {
	rx := e.Create()
	tx := e.Attach(rx.Handle())
	require.NoError(e, tx.Progress())
	require.NoError(e, rx.Cancel("no more"))
	e.Until(func() bool { return tx.Progress() != nil }, "no news of the cancellation")
	err := tx.Progress()
	require.ErrorIs(e, err, novastream.ErrCancelled)
	var why *novastream.CancelError
	require.ErrorAs(e, err, &why)
	require.Equal(e, "no more", why.Reason)

	// A failure in the background: the receiver's process dies, or is closed.
	if e.Lane.OneProcess {
		rx = e.Create()
		tx = e.Attach(rx.Handle())
		require.NoError(e, rx.Close())
	} else {
		c := e.Near("receive", "16")
		h, err := novastream.ParseHandle(c.Line())
		require.NoError(e, err)
		tx = e.Attach(h)
		require.NoError(e, tx.Progress())
		c.Kill()
	}
	e.Until(func() bool { return tx.Progress() != nil }, "no news of the failure")
	require.ErrorIs(e, tx.Progress(), novastream.ErrPeerDead)
	<-tx.Done()
}

// AttachTimeouts is case 21: the attach timeout fires once, pauses while
// attached, is armed again at detach.
func AttachTimeouts(e *Env) {
	rx := e.Create(novastream.AttachTimeout(pause))
	tx := e.Attach(rx.Handle())
	e.Expect(rx, novastream.KindAttached)
	quiet(2 * pause) // paused
	_, err := rx.TryRecv()
	require.ErrorIs(e, err, novastream.ErrEmpty)
	require.NoError(e, tx.Detach(e.Ctx))
	e.Expect(rx, novastream.KindDetached)
	f := e.Expect(rx, novastream.KindTimeout)
	require.ErrorIs(e, f.Err, novastream.ErrTimeout)
	require.Zero(e, f.Sender)
	for range 3 {
		_, err = rx.Recv(e.Ctx)
		require.ErrorIs(e, err, errEOF)
	}
	_, err = e.TX.Attach(e.Ctx, rx.Handle())
	require.ErrorIs(e, err, novastream.ErrStaleHandle)

	never := e.Create(novastream.AttachTimeout(pause))
	e.Expect(never, novastream.KindTimeout)
}

// Capacity is case 32: in flight never exceeds the capacity; the terminal's
// place stays free; a byte budget holds.
func Capacity(e *Env) {
	for _, slots := range []int{4, 16, 256} {
		rx := e.Create(novastream.Capacity(slots))
		tx := e.Attach(rx.Handle())
		require.Equal(e, uint64(slots), e.Fill(tx))
		done := make(chan error, 1)
		go func() { done <- tx.Finalize(e.Ctx) }()
		e.Expect(rx, novastream.KindAttached)
		e.ExpectData(rx, 0, uint64(slots))
		e.Expect(rx, novastream.KindFinalized)
		require.NoError(e, <-done)
		require.NoError(e, rx.Close())
	}
	for _, slots := range []int{0, -1, 3, 100, 1 << 40} {
		_, err := novastream.Create[Rec](e.RX, e.Options(novastream.Capacity(slots))...)
		require.ErrorIs(e, err, novastream.ErrConfig, "%d", slots)
		require.ErrorContains(e, err, strconv.Itoa(slots))
	}
	budget := int64(256 << 10)
	if e.Lane.OneRing { // its slots are twice as large
		budget = 512 << 10
	}
	s := e.Node(novastream.MaxMemory(budget))
	_, err := novastream.Create[Rec](s, e.Options(novastream.Capacity(1<<16))...)
	require.ErrorIs(e, err, novastream.ErrLimit)
	if e.Lane.OneProcess {
		e.TX = e.Here(s)
	}
	a, b := CreateOn(e, s, novastream.Capacity(2048)), CreateOn(e, s, novastream.Capacity(2048))
	e.Attach(a.Handle())
	_, err = e.TX.Attach(e.Ctx, b.Handle())
	require.ErrorIs(e, err, novastream.ErrLimit)
	require.LessOrEqual(e, s.Stats().Memory, budget)
	require.NoError(e, a.Close())
	e.Until(func() bool { return s.Stats().Memory == 0 }, "memory is held")
	e.Attach(b.Handle())
}

// StalledSibling is case 34: one stalled stream never stalls its siblings.
func StalledSibling(e *Env) {
	stalled := e.Create(novastream.Capacity(16))
	tx := e.Attach(stalled.Handle())
	n := e.Fill(tx)
	blocked := make(chan error, 1)
	go func() { blocked <- tx.Send(e.Ctx, MakeRec(n)) }()
	rx := e.Create(novastream.Capacity(16))
	other := e.Attach(rx.Handle())
	go func() {
		if other.SendAll(e.Ctx, 0, 5000) == nil {
			_ = other.Finalize(e.Ctx)
		}
	}()
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 5000)
	e.Expect(rx, novastream.KindFinalized)
	e.Expect(stalled, novastream.KindAttached)
	e.ExpectData(stalled, 0, n+1)
	require.NoError(e, <-blocked)
}

// slowFor is how long case 52 goes on: what grows by a frame a send grows by a
// gigabyte a minute, which seconds show.
const slowFor = 2 * time.Second

// growth is what a process may grow by that mostly waits for room: the race
// detector alone takes some of it.
const growth = 64 << 20

// FlatMemory is case 52: a consumer a hundred times slower than its producer:
// the memory of both processes stays flat.
func FlatMemory(e *Env) {
	rx := e.Create(novastream.Capacity(64))
	sending := e.TX.Resident
	if e.Lane.OneProcess || e.Lane.Apart {
		tx := e.Attach(rx.Handle())
		go func() { _ = tx.SendAll(e.Ctx, 0, math.MaxUint64) }()
	} else {
		c := e.Child("flood", rx.Handle().String())
		c.Number()
		sending = func() int64 { return resident(c.cmd.Process.Pid) }
	}
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 10_000)
	mine, its, memory := resident(os.Getpid()), sending(), e.RX.Stats().Memory
	start := time.Now()
	for i := uint64(10_000); time.Since(start) < slowFor; i++ {
		e.ExpectData(rx, i, i+1)
		quiet(time.Millisecond)
		require.Less(e, resident(os.Getpid()), mine+growth, "after %d values", i)
		require.Less(e, sending(), its+growth, "the sender, after %d values", i)
	}
	require.Equal(e, memory, e.RX.Stats().Memory)
	require.NoError(e, rx.Cancel("enough"))
}

// resident is the resident memory of a process, in bytes; 0 where the system
// does not tell.
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return n * int64(os.Getpagesize())
}

// NilMeansKept is case 59: Send that returned nil means in the ring, or in a
// bounded buffer that the transport owns; what a dying lane could not deliver
// is told to the sender by count.
func NilMeansKept(e *Env) {
	rx := e.Create(novastream.Capacity(128))
	tx := e.Attach(rx.Handle())
	n := e.Fill(tx)
	require.Equal(e, uint64(128), n)
	if !e.Carried() {
		require.NoError(e, tx.Close())
		e.Expect(rx, novastream.KindAttached)
		e.ExpectData(rx, 0, n)
		e.Expect(rx, novastream.KindDropped)
		return
	}
	// The connection breaks while nobody reads.
	e.TX.Disconnect()
	<-tx.Done()
	require.ErrorIs(e, tx.Err(), novastream.ErrPeerDead)
	var lost *novastream.LostError
	some := errors.As(tx.Err(), &lost)
	if !some {
		lost = new(novastream.LostError) // everything is known to have arrived
	}
	e.Expect(rx, novastream.KindAttached)
	got := uint64(0)
	for {
		f := e.Next(rx)
		if f.Kind == novastream.KindDropped {
			break
		}
		require.Equal(e, got, f.Value.Seq)
		got++
	}
	// What is not known to have arrived is counted; it may have. The sender is
	// told of no more than it has sent.
	require.GreaterOrEqual(e, got+lost.Slots, n)
	require.LessOrEqual(e, lost.Slots, n)
	require.LessOrEqual(e, got, n)
	if !some {
		return
	}
	require.ErrorContains(e, tx.Err(), strconv.FormatUint(lost.Slots, 10))
	v := MakeRec(n)
	require.ErrorAs(e, tx.TrySend(&v), &lost, "each later call says so too")
}
