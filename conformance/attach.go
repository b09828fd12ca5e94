package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/wire"
)

// HandleRoundTrip is case 1: a handle survives 16 bytes and text; the zero
// handle and a handle of another worker are refused with their own errors.
func HandleRoundTrip(e *Env) {
	h := e.Create().Handle()
	text, err := novastream.ParseHandle(h.String())
	require.NoError(e, err)
	require.Equal(e, h, text)
	b, err := h.MarshalBinary()
	require.NoError(e, err)
	require.Len(e, b, 16)
	var back novastream.Handle
	require.NoError(e, back.UnmarshalBinary(b))
	require.Equal(e, h, back)
	j, err := json.Marshal(map[string]novastream.Handle{"stream": h})
	require.NoError(e, err)
	var m map[string]novastream.Handle
	require.NoError(e, json.Unmarshal(j, &m))
	require.Equal(e, h, m["stream"])

	_, err = e.TX.Attach(e.Ctx, novastream.Handle{})
	require.ErrorIs(e, err, novastream.ErrBadHandle)
	for _, garbled := range []string{"", "nova:", "nova:zz", h.String()[:20], h.String() + "00", "nova:00000000000000000000000000000000"} {
		_, err = novastream.ParseHandle(garbled)
		require.ErrorIs(e, err, novastream.ErrBadHandle, garbled)
	}
	nobody := handle.Make(12345, h.Slot(), h.Generation())
	_, err = e.TX.Attach(e.Ctx, nobody)
	require.ErrorIs(e, err, novastream.ErrNoSuchStream)
	if e.Lane.OneProcess {
		return
	}
	// A handle that reaches a worker that did not make it.
	req, err := proto.Marshal(&wire.AttachRequest{Handle: nobody[:], Outlet: 77})
	require.NoError(e, err)
	err = e.TX.Say(e.Ctx, e.RX.Node().WorkerID(), ByCall, "stream_attach", req)
	require.ErrorIs(e, err, novastream.ErrOtherWorker)
}

// StaleGeneration is case 2: a recycled slot refuses a handle of an older
// generation.
func StaleGeneration(e *Env) {
	old := e.Create()
	require.NoError(e, old.Close())
	young := e.Create()
	require.Equal(e, old.Handle().Slot(), young.Handle().Slot())
	_, err := e.TX.Attach(e.Ctx, old.Handle())
	require.ErrorIs(e, err, novastream.ErrStaleHandle)
	e.Attach(young.Handle())
	future := handle.Make(young.Handle().Worker(), young.Handle().Slot(), young.Handle().Generation()+1)
	_, err = e.TX.Attach(e.Ctx, future)
	require.ErrorIs(e, err, novastream.ErrNoSuchStream)
}

// OutOfAnchors is case 3: running out of anchors is an error, never a panic.
func OutOfAnchors(e *Env) {
	s := e.Node(novastream.MaxStreams(2))
	CreateOn(e, s)
	second := CreateOn(e, s)
	_, err := novastream.Create[Rec](s, e.Options()...)
	require.ErrorIs(e, err, novastream.ErrLimit)
	require.NoError(e, second.Close())
	CreateOn(e, s)
}

// OneSender is case 4: a second sender on an exclusive anchor gets
// ErrAlreadyAttached; of racing attaches exactly one wins.
func OneSender(e *Env) {
	e.SkipFor(e.Lane.OneRing, Exclusive)
	rx := e.Create()
	e.Attach(rx.Handle())
	_, err := e.TX.Attach(e.Ctx, rx.Handle())
	require.ErrorIs(e, err, novastream.ErrAlreadyAttached)

	raced := e.Create()
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() {
			tx, err := e.TX.Attach(e.Ctx, raced.Handle())
			if errs[i] = err; err == nil {
				e.Cleanup(func() { tx.Close() })
			}
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			require.ErrorIs(e, err, novastream.ErrAlreadyAttached)
		}
	}
	require.Equal(e, 1, won)
}

// FiveErrors is case 5: unknown anchor, wrong kind, too many senders, wrong
// payload type, cancelled anchor: five errors, the same from another process.
func FiveErrors(e *Env) {
	rx := e.Create()
	h := rx.Handle()
	unknown := handle.Make(h.Worker(), 999, 1)
	full, err := novastream.Create[Rec](e.RX, novastream.Shared(1))
	require.NoError(e, err)
	defer full.Close()
	tx, err := e.TX.Attach(e.Ctx, full.Handle())
	require.NoError(e, err)
	defer tx.Close()
	cancelled := e.Create()
	keep, err := novastream.Create[Rec](e.RX)
	require.NoError(e, err)
	defer keep.Close()
	require.NoError(e, cancelled.Cancel("enough"))
	bytes, err := novastream.CreateBytes(e.RX)
	require.NoError(e, err)
	defer bytes.Close()

	cases := []struct {
		h    novastream.Handle
		typ  string
		want error
		name string
	}{
		{unknown, "rec", novastream.ErrNoSuchStream, "NoSuchStream"},
		{bytes.Handle(), "rec", novastream.ErrTypeMismatch, "TypeMismatch"},
		{full.Handle(), "rec", novastream.ErrTooManySenders, "TooManySenders"},
		{h, "other", novastream.ErrTypeMismatch, "TypeMismatch"},
		{cancelled.Handle(), "rec", novastream.ErrCancelled, "Cancelled"},
	}
	for _, c := range cases {
		for _, from := range []Sending{e.TX, e.Here(e.RX)} { // from another node, and from its own
			if c.typ == "other" {
				err = from.AttachOther(e.Ctx, c.h, "small")
			} else {
				_, err = from.Attach(e.Ctx, c.h)
			}
			require.ErrorIs(e, err, c.want, c.name)
			require.ErrorContains(e, err, c.h.String())
		}
		if !e.Lane.OneProcess {
			child := e.Child("attach", c.h.String(), c.typ)
			require.Equal(e, c.name, child.Line())
			child.Wait()
		}
	}
	for _, from := range []Sending{e.TX, e.Here(e.RX)} {
		var why *novastream.CancelError
		_, err = from.Attach(e.Ctx, cancelled.Handle())
		require.ErrorAs(e, err, &why)
		require.Equal(e, "enough", why.Reason)
	}
}

// AfterDetach is case 6: after a detach another sender attaches; nothing of the
// second comes before the first's Detached.
func AfterDetach(e *Env) {
	if e.Lane.OneRing {
		afterDetachShared(e)
		return
	}
	rx := e.Create()
	first := e.Attach(rx.Handle())
	e.Send(first, 0, 10)
	require.NoError(e, first.Detach(e.Ctx))
	second := e.Attach(rx.Handle())
	e.Send(second, 100, 110)
	require.NoError(e, second.Finalize(e.Ctx))
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 10)
	require.Equal(e, first.ID(), e.Expect(rx, novastream.KindDetached).Sender)
	require.Equal(e, second.ID(), e.Expect(rx, novastream.KindAttached).Sender)
	e.ExpectData(rx, 100, 110)
	e.Expect(rx, novastream.KindFinalized)
	e.ExpectEnd(rx)
}

// afterDetachShared is case 6 where senders share a ring: the place of one that
// has detached is free at once, however far behind the receiver is.
func afterDetachShared(e *Env) {
	const rounds = 40
	rx := e.Create(novastream.Shared(2))
	e.Attach(rx.Handle())
	for i := range uint64(rounds) {
		tx := e.Attach(rx.Handle())
		e.Send(tx, i, i+1)
		require.NoError(e, tx.Detach(e.Ctx))
	}
	next, left := uint64(0), 0
	for left < rounds {
		switch f := e.Next(rx); f.Kind {
		case novastream.KindData:
			require.Equal(e, next, f.Value.Seq)
			next++
		case novastream.KindDetached:
			left++
		default:
			require.Equal(e, novastream.KindAttached, f.Kind)
		}
	}
	require.Equal(e, uint64(rounds), next)
	require.Equal(e, 1, e.RX.Stats().Senders)
}

// LateDetached is case 7: reading the first sender's Detached late does not
// unattach the second.
func LateDetached(e *Env) {
	e.SkipFor(e.Lane.OneRing, Exclusive)
	rx := e.Create()
	first := e.Attach(rx.Handle())
	require.NoError(e, first.Detach(e.Ctx))
	second := e.Attach(rx.Handle())
	e.Expect(rx, novastream.KindAttached)
	e.Expect(rx, novastream.KindDetached)
	_, err := e.TX.Attach(e.Ctx, rx.Handle())
	require.ErrorIs(e, err, novastream.ErrAlreadyAttached)
	e.Send(second, 0, 5)
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 5)
}

// AttachRacesCancel is case 22: attach racing cancel either fails cleanly or is
// cancelled; never half attached.
func AttachRacesCancel(e *Env) {
	for range 50 {
		rx := e.Create()
		done := make(chan error, 1)
		go func() {
			tx, err := e.TX.Attach(e.Ctx, rx.Handle())
			if err != nil {
				done <- err
				return
			}
			<-tx.Done()
			done <- tx.Err()
		}()
		require.NoError(e, rx.Cancel("race"))
		err := <-done
		require.True(e, errors.Is(err, novastream.ErrCancelled), "%v", err)
		for {
			if f := e.Next(rx); f.Kind == novastream.KindCancelled {
				break
			}
		}
		_, err = rx.Recv(e.Ctx)
		require.ErrorIs(e, err, errEOF)
	}
	e.Until(func() bool {
		s := e.RX.Stats()
		return s.Inbound == 0 && s.Anchors == 0 && e.TX.Stats().Outlets == 0
	}, "sessions are left")
}

// LaneByName is case 33: a lane that the other side does not offer is not used;
// asked for by name, it is an error.
func LaneByName(e *Env) {
	all := []novastream.Lane{novastream.LaneLocal, novastream.LaneShm, novastream.LaneRDMA, novastream.LaneTCP}
	for _, l := range all {
		rx := e.Create(novastream.Lanes(e.Lane.Lane))
		tx, err := e.TX.Attach(e.Ctx, rx.Handle(), How{Lanes: []novastream.Lane{l}})
		if l == e.Lane.Lane {
			require.NoError(e, err)
			require.Equal(e, l, tx.Lane())
			tx.Close()
			continue
		}
		require.ErrorIs(e, err, novastream.ErrLaneUnavailable, "%s", l)
	}
	for _, l := range all {
		if l == e.Lane.Lane || e.Lane.Lane == novastream.LaneRDMA && l == novastream.LaneTCP {
			continue // both have it
		}
		rx := e.Create(novastream.Lanes(l))
		_, err := e.TX.Attach(e.Ctx, rx.Handle())
		require.ErrorIs(e, err, novastream.ErrLaneUnavailable, "%s", l)
	}
	_, err := novastream.Create[Rec](e.RX, novastream.Lanes("carrier-pigeon"))
	require.ErrorIs(e, err, novastream.ErrLaneUnavailable)
}

// FailedAttach is case 36: a failed attach leaves nothing behind.
func FailedAttach(e *Env) {
	rx := e.Create()
	gone := e.Create()
	require.NoError(e, gone.Close())
	narrow := e.Node(novastream.MaxMemory(9 << 20))
	tight := CreateOn(e, narrow, novastream.Capacity(1<<16))
	again := func() {
		err := e.TX.AttachOther(e.Ctx, rx.Handle(), "small")
		require.ErrorIs(e, err, novastream.ErrTypeMismatch)
		_, err = e.TX.Attach(e.Ctx, gone.Handle())
		require.ErrorIs(e, err, novastream.ErrStaleHandle)
		_, err = e.TX.Attach(e.Ctx, rx.Handle(), How{Lanes: []novastream.Lane{"shm", "local", "tcp"}, BadCodec: true})
		require.ErrorIs(e, err, novastream.ErrTypeMismatch)
		ctx, cancel := context.WithCancel(e.Ctx)
		cancel()
		_, err = e.TX.Attach(ctx, rx.Handle())
		require.ErrorIs(e, err, context.Canceled)
	}
	again() // connects the nodes
	tx, err := e.TX.Attach(e.Ctx, tight.Handle())
	require.NoError(e, err)
	require.NoError(e, tx.Close())
	before := e.Held()
	for range 100 {
		again()
	}
	e.Back(before)
	require.Zero(e, e.RX.Stats().Inbound)
	require.Zero(e, e.RX.Stats().Memory)
}

// badCodec fails on demand.
type badCodec struct{}

func (badCodec) Name() string { return "bad" }
func (badCodec) Append(dst []byte, v Rec) ([]byte, error) {
	if v.Seq == 3 {
		return append(dst, "garbage"...), nil
	}
	return fmt.Append(dst, v.Seq), nil
}
func (badCodec) Decode(b []byte, v *Rec) error {
	_, err := fmt.Sscan(string(b), &v.Seq)
	return err
}
