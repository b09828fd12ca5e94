//go:build failpoint && linux

package crashtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/conformance"
)

// cutAttach starts a sender that stands at a step of its attach, and whose connection is
// cut there.
func (e *env) cutAttach(rx *receiver, point string) *child {
	c := start(e, program{Dir: e.dir, Handle: rx.handle.String(), Op: "attachcut", Point: point})
	c.stopped()
	require.Equal(e, 2, e.a.Stats().Senders)
	c.word()
	e.until(func() bool { return e.a.Stats().Senders == 1 }, "the end of the connection is not noticed")
	return c
}

// An attach that is cut off before the sender has joined gives its record free, although
// the process lives: coming late, it does not join.
func TestCrash_MPSCAttachCutOffBeforeItJoins(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		var stand []*child
		for range 3 { // more than there are records
			stand = append(stand, e.cutAttach(rx, "join/begun"))
			sender{}.another(e, rx)
		}
		for i, c := range stand {
			require.NoError(e, c.Continue())
			require.Equal(e, "peer is gone", c.line())
			sender{}.another(e, rx)
			cut := living.id + 1 + 2*novastream.SenderID(i)
			rx.until(cut)
			rx.expect(cut, 0, dropped)
		}
		e.finish(rx, living, 0, others)
		for _, c := range stand {
			c.kill()
		}
	})
}

// Cut off right behind that, it may claim: its record is its own until it has noticed,
// and by its own word free then.
func TestCrash_MPSCAttachCutOffAfterItJoined(t *testing.T) {
	rounds(t, func(e *env) {
		rx := e.create(false, novastream.Capacity(64), novastream.Shared(2), novastream.OneRing())
		defer rx.close()
		living := e.attach(rx.handle, false)
		c := e.cutAttach(rx, "join/joined")
		_, err := novastream.Attach[conformance.Rec](e.ctx, e.b, rx.handle)
		require.ErrorIs(e, err, novastream.ErrTooManySenders)
		require.NoError(e, c.Continue())
		require.Equal(e, "peer is gone", c.line())
		sender{}.another(e, rx)
		sender{}.another(e, rx)
		rx.until(living.id + 1)
		rx.expect(living.id+1, 0, dropped)
		e.finish(rx, living, 0, others)
		c.kill()
	})
}

// The same before the receiver has answered: the sender never learns of its record.
func TestCrash_MPSCAcceptCutOffBeforeTheAnswer(t *testing.T) {
	rounds(t, func(e *env) {
		r, h := receiving{ring: true, op: "attached", point: "accept/admitted"}.stream(e)
		c := start(e, program{Dir: e.dir, Handle: h.String(), Op: "attachcut"})
		r.stopped()
		c.word()
		require.Equal(e, "peer is gone", c.line())
		require.NoError(e, r.Continue())
		for range 2 { // as many as there are records
			var tx *novastream.Sender[conformance.Rec]
			e.until(func() (ok bool) {
				var err error
				if tx, err = novastream.Attach[conformance.Rec](e.ctx, e.b, h); err != nil {
					require.ErrorIs(e, err, novastream.ErrTooManySenders) // it has not noticed yet
				}
				return err == nil
			}, "its record is not free")
			defer tx.Close()
			require.NoError(e, tx.Send(e.ctx, conformance.MakeRec(0)))
		}
		c.kill()
		r.kill()
	})
}

// The receiver dies when it has taken a record back.
func TestCrash_MPSCRecordRevokedBeforeItIsFree(t *testing.T) {
	rounds(t, func(e *env) {
		r, h := receiving{ring: true, op: "attached", point: "expel/revoked"}.stream(e)
		c := start(e, program{Dir: e.dir, Handle: h.String(), Op: "attachcut", Point: "join/begun"})
		c.stopped()
		c.word()
		r.stopped()
		r.kill()
		require.NoError(e, c.Continue())
		require.Equal(e, "peer is gone", c.line())
		c.kill()
	})
}
