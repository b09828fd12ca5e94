package shm

import (
	"context"
	"encoding/binary"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
)

// An answer that names a segment of a connection that has ended since is no bad
// answer: what was kept for that peer has gone.
func TestConnectBehindTheEndOfTheConnection(t *testing.T) {
	dir := t.TempDir()
	quiet := control.WithLogger(slog.New(slog.DiscardHandler))
	a, err := control.Listen(context.Background(), control.WithDir(dir), quiet)
	require.NoError(t, err)
	defer a.Close()
	b, err := control.Listen(context.Background(), control.WithDir(dir), quiet)
	require.NoError(t, err)
	defer b.Close()
	peer, err := a.Peer(context.Background(), b.WorkerID())
	require.NoError(t, err)
	require.NoError(t, peer.Close())
	l := New(slog.New(slog.DiscardHandler))
	geo := ring.Geometry{SlotSize: 64, Slots: 64, Payload: 56, Producers: 1}
	_, err = l.Connect(lane.Request{Peer: peer, Geometry: geo}, lane.Reply{Data: binary.AppendUvarint(nil, 7)})
	require.ErrorIs(t, err, control.ErrConnLost)
	require.NotErrorIs(t, err, lane.ErrAnswer)
}
