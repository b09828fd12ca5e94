package conformance

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/novastream/novastream"
)

// life is an exclusive stream in one process, and what it should be: who may attach,
// what the receiver is told, and what the sender's calls answer.
type life struct {
	e  *Env
	rx *novastream.Receiver[Rec]
	tx Sender // the last one that attached

	attached bool
	sendErr  error // what the last sender's calls answer, nil while it may send
	attach   error // what an attach answers, nil for one that is let in
	after    error // what the receiver is told behind all of told
	told     []novastream.Frame[Rec]
	sent     uint64 // by the last sender
	unread   int    // values in told
	last     bool   // the last of told ends the stream
}

func (l *life) tell(kind novastream.Kind) {
	l.told = append(l.told, novastream.Frame[Rec]{Kind: kind})
}

// ends has the stream end with what is told last; until that is read, an attach
// answers err.
func (l *life) ends(kind novastream.Kind, err error) {
	l.tell(kind)
	l.last, l.attached = true, false
	if l.attach == nil || errors.Is(l.attach, novastream.ErrAlreadyAttached) {
		l.attach = err
	}
}

func (l *life) Attach(t *rapid.T) {
	tx, err := l.e.TX.Attach(l.e.Ctx, l.rx.Handle())
	if l.attach != nil {
		require.ErrorIs(t, err, l.attach)
		return
	}
	require.NoError(t, err)
	l.tx, l.attached, l.sendErr, l.sent = tx, true, nil, 0
	l.attach = novastream.ErrAlreadyAttached
	l.tell(novastream.KindAttached)
}

func (l *life) Send(t *rapid.T) {
	if l.tx == nil || l.unread > 30 {
		t.Skip()
	}
	v := MakeRec(l.sent)
	err := l.tx.TrySend(&v)
	if l.sendErr != nil {
		require.ErrorIs(t, err, l.sendErr)
		return
	}
	require.NoError(t, err)
	l.told = append(l.told, novastream.Frame[Rec]{Kind: novastream.KindData, Value: v, Seq: l.sent})
	l.sent++
	l.unread++
}

func (l *life) Recv(t *rapid.T) {
	f, err := l.rx.TryRecv()
	if len(l.told) == 0 {
		require.ErrorIs(t, err, l.after)
		return
	}
	require.NoError(t, err)
	want := l.told[0]
	l.told = l.told[1:]
	require.Equal(t, want.Kind, f.Kind)
	if f.Kind == novastream.KindData {
		l.unread--
		require.Equal(t, want.Value, f.Value)
		require.Equal(t, want.Seq, f.Seq)
	}
	if len(l.told) == 0 && l.last {
		l.after, l.attach = io.EOF, novastream.ErrStaleHandle
	}
}

// leave is an end that the sender asks for.
func (l *life) leave(t *rapid.T, kind novastream.Kind, call func(Sender) error) {
	if l.tx == nil {
		t.Skip()
	}
	err := call(l.tx)
	if l.sendErr != nil {
		if kind != novastream.KindDropped { // Close always answers nil
			require.ErrorIs(t, err, l.sendErr)
		}
		return
	}
	require.NoError(t, err)
	l.sendErr, l.attached = novastream.ErrClosed, false
	if kind == novastream.KindDetached {
		l.tell(kind)
		l.attach = nil
		return
	}
	l.ends(kind, novastream.ErrFinalized)
}

func (l *life) Detach(t *rapid.T) {
	l.leave(t, novastream.KindDetached, func(tx Sender) error { return tx.Detach(l.e.Ctx) })
}

func (l *life) Finalize(t *rapid.T) {
	l.leave(t, novastream.KindFinalized, func(tx Sender) error { return tx.Finalize(l.e.Ctx) })
}

func (l *life) Die(t *rapid.T) {
	l.leave(t, novastream.KindDropped, Sender.Close)
}

func (l *life) Cancel(t *rapid.T) {
	err := l.rx.Cancel("enough")
	switch {
	case errors.Is(l.after, novastream.ErrClosed):
		require.ErrorIs(t, err, novastream.ErrClosed)
		return
	case l.last: // it has ended: what is unread stays
		require.NoError(t, err)
		return
	}
	require.NoError(t, err)
	if l.attached {
		l.sendErr = novastream.ErrCancelled
	}
	l.told, l.unread = nil, 0 // what has not been read is not delivered
	l.ends(novastream.KindCancelled, novastream.ErrCancelled)
}

func (l *life) Close(t *rapid.T) {
	require.NoError(t, l.rx.Close())
	if l.attached {
		l.sendErr = novastream.ErrPeerDead
	}
	l.told, l.unread, l.last, l.attached = nil, 0, true, false
	l.after, l.attach = novastream.ErrClosed, novastream.ErrStaleHandle
}

// TimeOut is the life of a stream that nobody comes to.
func (l *life) TimeOut(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "seldom") > 0 {
		t.Skip()
	}
	rx, err := novastream.Create[Rec](l.e.RX, novastream.AttachTimeout(time.Millisecond))
	require.NoError(t, err)
	f, err := rx.Recv(l.e.Ctx)
	require.NoError(t, err)
	require.Equal(t, novastream.KindTimeout, f.Kind)
	_, err = rx.TryRecv()
	require.ErrorIs(t, err, io.EOF)
	_, err = l.e.TX.Attach(l.e.Ctx, rx.Handle())
	require.ErrorIs(t, err, novastream.ErrStaleHandle)
	require.NoError(t, rx.Close())
}

// TestAnchorsLife: whatever is done to a stream in whatever order, it is what a simple
// model says, and nothing of it is left when it is closed.
func TestAnchorsLife(t *testing.T) {
	for _, l := range Lanes() {
		if l.Name != "local" { // elsewhere news travel, and come when they come
			continue
		}
		Run(t, l, func(e *Env) {
			rapid.Check(e.T, func(t *rapid.T) {
				rx, err := novastream.Create[Rec](e.RX, novastream.Capacity(64), novastream.AttachTimeout(0))
				require.NoError(t, err)
				life := &life{e: e, rx: rx, after: novastream.ErrEmpty}
				end := func() {
					_ = rx.Close()
					if life.tx != nil {
						_ = life.tx.Close()
					}
				}
				defer end() // also when it fails
				t.Repeat(rapid.StateMachineActions(life))
				end()
				s := e.RX.Stats()
				require.Zero(t, s.Anchors+s.Inbound+s.Outlets+s.Senders)
				require.Zero(t, s.Memory)
			})
		})
	}
}

// Check holds after each step: a place is taken while a sender is attached, and free
// when the next may attach.
func (l *life) Check(t *rapid.T) {
	switch n := l.e.RX.Stats().Senders; {
	case l.attached:
		require.Equal(t, 1, n)
	case l.attach == nil:
		require.Zero(t, n)
	}
}
