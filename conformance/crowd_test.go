package conformance

import (
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/novastream/novastream"
)

// most is how many senders the stream of a crowd takes at a time.
const most = 3

// crowd is a shared stream in one process, and what it should be.
type crowd struct {
	e    *Env
	rx   *novastream.Receiver[Rec]
	all  map[novastream.SenderID]*member // those that were let in, of which there is something to tell or to ask
	ever map[novastream.SenderID]bool

	attach error // what an attach answers, nil for one that is let in if there is a place
	over   bool  // nothing is sent any more: when all is told, KindCancelled, and then after
	after  error // what the receiver is told when there is nothing to tell
	unread int
}

// member is one sender: what is told of it comes in its order, whatever comes between.
type member struct {
	tx   Sender
	told []novastream.Frame[Rec]
	err  error // what its calls answer, nil while it may send
	sent uint64
}

func (m *member) tell(kind novastream.Kind) {
	m.told = append(m.told, novastream.Frame[Rec]{Kind: kind})
}

func (c *crowd) attached() (n int) {
	for _, m := range c.all {
		if m.err == nil {
			n++
		}
	}
	return n
}

// any draws a sender.
func (c *crowd) any(t *rapid.T) *member {
	if len(c.all) == 0 {
		t.Skip()
	}
	return c.all[rapid.SampledFrom(slices.Sorted(maps.Keys(c.all))).Draw(t, "sender")]
}

func (c *crowd) Attach(t *rapid.T) {
	tx, err := c.e.TX.Attach(c.e.Ctx, c.rx.Handle())
	switch {
	case c.attach != nil:
		require.ErrorIs(t, err, c.attach)
		return
	case c.attached() == most:
		require.ErrorIs(t, err, novastream.ErrTooManySenders)
		return
	}
	require.NoError(t, err)
	require.False(t, c.ever[tx.ID()], "the id of another")
	m := &member{tx: tx}
	m.tell(novastream.KindAttached)
	c.all[tx.ID()], c.ever[tx.ID()] = m, true
}

func (c *crowd) Send(t *rapid.T) {
	m := c.any(t)
	if c.unread > 20 {
		t.Skip()
	}
	v := MakeRec(m.sent)
	err := m.tx.TrySend(&v)
	if m.err != nil {
		require.ErrorIs(t, err, m.err)
		return
	}
	require.NoError(t, err)
	m.told = append(m.told, novastream.Frame[Rec]{Kind: novastream.KindData, Value: v, Seq: m.sent})
	m.sent++
	c.unread++
}

func (c *crowd) Recv(t *rapid.T) {
	f, err := c.rx.TryRecv()
	left := 0
	for _, m := range c.all {
		left += len(m.told)
	}
	switch {
	case left > 0:
		require.NoError(t, err)
		m := c.all[f.Sender]
		require.NotNil(t, m, "%+v", f)
		require.NotEmpty(t, m.told, "%+v", f)
		want := m.told[0]
		m.told = m.told[1:]
		require.Equal(t, want.Kind, f.Kind)
		if f.Kind == novastream.KindData {
			c.unread--
			require.Equal(t, want.Value, f.Value)
			require.Equal(t, want.Seq, f.Seq)
		}
	case c.over && c.after == nil:
		require.NoError(t, err)
		require.Equal(t, novastream.KindCancelled, f.Kind)
		require.Zero(t, f.Sender)
		c.after, c.attach = io.EOF, novastream.ErrStaleHandle
	default:
		require.ErrorIs(t, err, c.after)
	}
}

func (c *crowd) leave(t *rapid.T, kind novastream.Kind, call func(Sender) error) {
	m := c.any(t)
	err := call(m.tx)
	switch {
	case m.err == nil:
		require.NoError(t, err)
		m.err = novastream.ErrClosed
		m.tell(kind)
	case kind != novastream.KindDropped: // Close always answers nil
		require.ErrorIs(t, err, m.err)
	}
}

func (c *crowd) Detach(t *rapid.T) {
	c.leave(t, novastream.KindDetached, func(tx Sender) error { return tx.Detach(c.e.Ctx) })
}

func (c *crowd) Finalize(t *rapid.T) {
	c.leave(t, novastream.KindFinalized, func(tx Sender) error { return tx.Finalize(c.e.Ctx) })
}

func (c *crowd) Die(t *rapid.T) {
	c.leave(t, novastream.KindDropped, Sender.Close)
}

// ends has the senders' calls answer err from now on.
func (c *crowd) ends(err error) {
	for _, m := range c.all {
		if m.err == nil {
			m.err = err
		}
	}
}

// forget drops what was not told.
func (c *crowd) forget() {
	for _, m := range c.all {
		m.told = nil
	}
	c.unread = 0
}

func (c *crowd) Stop(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
		t.Skip()
	}
	err := c.rx.Stop(c.e.Ctx)
	if errors.Is(c.after, novastream.ErrClosed) {
		require.ErrorIs(t, err, novastream.ErrClosed)
		return
	}
	require.NoError(t, err)
	if c.over {
		return
	}
	for _, m := range c.all {
		if m.err == nil {
			m.tell(novastream.KindCancelled)
		}
	}
	c.ends(novastream.ErrCancelled)
	c.over, c.after, c.attach = true, nil, novastream.ErrCancelled
}

func (c *crowd) Cancel(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
		t.Skip()
	}
	err := c.rx.Cancel("enough")
	if errors.Is(c.after, novastream.ErrClosed) {
		require.ErrorIs(t, err, novastream.ErrClosed)
		return
	}
	require.NoError(t, err)
	if c.after == io.EOF {
		return
	}
	c.forget()
	c.ends(novastream.ErrCancelled)
	c.over, c.after, c.attach = true, nil, novastream.ErrCancelled
}

func (c *crowd) Close(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
		t.Skip()
	}
	require.NoError(t, c.rx.Close())
	c.forget()
	c.ends(novastream.ErrPeerDead)
	c.over, c.after, c.attach = true, novastream.ErrClosed, novastream.ErrStaleHandle
}

// Check holds after each step.
func (c *crowd) Check(t *rapid.T) {
	if c.attach == nil {
		require.Equal(t, c.attached(), c.e.RX.Stats().Senders)
	}
}

// TestCrowdsLife is TestAnchorsLife for streams of several senders, which have rings of
// their own or share one.
func TestCrowdsLife(t *testing.T) {
	for _, l := range Lanes() {
		if !l.OneProcess { // elsewhere news travel, and come when they come
			continue
		}
		Run(t, l, func(e *Env) {
			rapid.Check(e.T, func(t *rapid.T) {
				opts := []novastream.CreateOption{novastream.Shared(most), novastream.Capacity(64), novastream.AttachTimeout(0)}
				if l.OneRing {
					opts = append(opts, novastream.OneRing())
				}
				rx, err := novastream.Create[Rec](e.RX, opts...)
				require.NoError(t, err)
				c := &crowd{e: e, rx: rx, all: map[novastream.SenderID]*member{}, ever: map[novastream.SenderID]bool{}, after: novastream.ErrEmpty}
				end := func() {
					_ = rx.Close()
					for _, m := range c.all {
						_ = m.tx.Close()
					}
				}
				defer end() // also when it fails
				t.Repeat(rapid.StateMachineActions(c))
				end()
				s := e.RX.Stats()
				require.Zero(t, s.Anchors+s.Inbound+s.Outlets+s.Senders)
				require.Zero(t, s.Memory)
			})
		})
	}
}
