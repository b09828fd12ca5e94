package conformance

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// TestNoSenderBehindADropped: an exclusive stream is over when its sender has dropped,
// so nobody is let in behind that who would send, and finalize, into nothing; also
// while the receiver has not read as far.
func TestNoSenderBehindADropped(t *testing.T) {
	for _, l := range Lanes() {
		if l.OneProcess || l.OneRing { // no connection, no exclusive stream
			continue
		}
		Run(t, l, func(e *Env) {
			rx, left := e.Create(), e.Create()
			e.Attach(rx.Handle())
			require.NoError(e, e.Attach(left.Handle()).Detach(e.Ctx))
			for _, p := range e.RX.Node().Peers() {
				p.Close()
			}
			e.Until(func() bool { return e.RX.Stats().Senders == 0 && e.TX.Peers() == 0 }, "the connection lasts")
			_, err := e.TX.Attach(e.Ctx, rx.Handle())
			require.ErrorIs(e, err, novastream.ErrAlreadyAttached)
			e.Expect(rx, novastream.KindAttached)
			e.Expect(rx, novastream.KindDropped)
			e.ExpectEnd(rx)
			_, err = e.TX.Attach(e.Ctx, rx.Handle())
			require.ErrorIs(e, err, novastream.ErrStaleHandle)

			e.Attach(left.Handle()) // it had been left in order, which nobody has read either
		})
	}
}
