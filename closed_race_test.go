package novastream

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A receiver that is closed while it reads is told that, and not that its sender has
// dropped: what the sender does then is only Close's consequence.
func TestNoDroppedByOwnClose(t *testing.T) {
	s := testStreaming(t)
	for range 3000 {
		rx, err := Create[tick](s, Shared(1), OneRing(), Capacity(64))
		require.NoError(t, err)
		tx, err := Attach[tick](context.Background(), s, rx.Handle())
		require.NoError(t, err)
		told := make(chan error)
		go func() {
			for {
				f, err := rx.TryRecv()
				switch {
				case errors.Is(err, ErrEmpty):
				case err != nil:
					told <- err
					return
				case f.Kind.Exit():
					told <- errors.New(f.Kind.String())
					return
				}
			}
		}()
		sent := make(chan error)
		go func() {
			for {
				if err := tx.TrySend(&tick{}); err != nil && !errors.Is(err, ErrFull) {
					sent <- err
					return
				}
			}
		}()
		spin(2000)
		require.NoError(t, rx.Close())
		require.ErrorIs(t, <-told, ErrClosed)
		require.ErrorIs(t, <-sent, ErrPeerDead)
		require.NoError(t, tx.Close())
	}
}
