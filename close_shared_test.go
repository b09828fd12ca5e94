package novastream

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slowCodec says when it has been given room, and waits before it writes there.
type slowCodec struct{ given, write chan struct{} }

func (slowCodec) Name() string { return "slow" }
func (c slowCodec) Append(dst []byte, v string) ([]byte, error) {
	c.given <- struct{}{}
	<-c.write
	return append(dst, v...), nil
}
func (slowCodec) Decode(b []byte, v *string) error {
	*v = string(b)
	return nil
}

// A sender of a shared ring is closed in the middle of a Send: the memory stays until
// Send has written, nobody else gets the room, and the end comes behind it.
func TestCloseWithinSendInASharedRing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	rs, ts := twoNodes(t)
	codec := slowCodec{make(chan struct{}), make(chan struct{})}
	rx, err := Create[string](rs, Capacity(64), Shared(2), OneRing(), WithCodec[string](codec))
	require.NoError(t, err)
	defer rx.Close()
	tx, err := Attach[string](ctx, ts, rx.Handle(), WithCodec[string](codec))
	require.NoError(t, err)
	sent := make(chan error, 1)
	send := func() { sent <- tx.Send(ctx, "written late") }
	go send()
	for first := true; first; { // it learns how much room the value needs
		select {
		case <-codec.given:
			codec.write <- struct{}{}
		case err := <-sent:
			require.NoError(t, err)
			first = false
		}
	}
	go send()
	<-codec.given
	require.NoError(t, tx.Close())
	codec.write <- struct{}{}
	require.ErrorIs(t, <-sent, ErrClosed)
	for _, want := range []Kind{KindAttached, KindData, KindData, KindDropped} {
		f, err := rx.Recv(ctx)
		require.NoError(t, err)
		require.Equal(t, want, f.Kind)
	}
	require.Eventually(t, func() bool { return ts.Stats().Outlets == 0 }, 10*time.Second, time.Millisecond)
}

// Whoever holds a slot that Close has given up finds the memory there, and hears of
// Close from Commit.
func TestCloseUnderAReservationInASharedRing(t *testing.T) {
	ctx := context.Background()
	rs, ts := twoNodes(t)
	rx, err := Create[tick](rs, Capacity(64), Shared(2), OneRing())
	require.NoError(t, err)
	defer rx.Close()
	tx, err := Attach[tick](ctx, ts, rx.Handle())
	require.NoError(t, err)
	p, err := tx.Reserve()
	require.NoError(t, err)
	require.NoError(t, tx.Close())
	*p = tick{} // it must not, and it does no harm here
	require.ErrorIs(t, tx.Commit(), ErrClosed)
	for _, want := range []Kind{KindAttached, KindDropped} {
		f, err := rx.Recv(ctx)
		require.NoError(t, err)
		require.Equal(t, want, f.Kind)
	}
	require.Equal(t, 0, ts.Stats().Outlets)
}
